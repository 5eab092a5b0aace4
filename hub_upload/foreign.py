"""Metadata of a card that this project does not set (widget, thumbnail, gating texts). The card may be anybody's."""

import re
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from trainers.recipes.safe_yaml import load_yaml

from .client import ConflictError

# Keys that this project sets.
OWN_METADATA = {
    "library_name", "pipeline_tag", "base_model", "base_model_relation", "tags", "language", "license", "license_name",
    "license_link", "datasets", "metrics", "model-index",
}  # fmt: skip
LIMIT = 100_000


def foreign_metadata(card: str | None, where: str) -> dict[str, Any]:
    """
    Metadata of a card that this project does not set, and its tags.

    Raises:
        ConflictError: when it cannot be read, or is of a kind that no card needs.
    """
    if not card:
        return {}
    header = re.match(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*\r?$", card, re.DOTALL | re.MULTILINE)
    source = header[1] if header else ""
    try:
        if len(source) > LIMIT:
            raise ValueError(f"it is longer than {LIMIT} characters")
        data = load_yaml(source) or {}  # which refuses deep nesting, over which the scanner below would take hours
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(source)):
            raise ValueError("it refers to itself")
        if not isinstance(data, dict):
            raise ValueError("it is no mapping of names to values")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConflictError(
            f"The metadata of {where} cannot be read ({reason}). Mend it on the Hub, then push again."
        ) from error
    own = OWN_METADATA | {"model_name", "eval_results", "ignore_metadata_errors"}
    kept = {
        key: value
        for key, value in data.items()  # a key that is a method's name would take the method's place
        if isinstance(key, str) and key not in own and key != "self" and not hasattr(ModelCardData, key)
    }
    given = data.get("tags")
    tags = [tag for tag in given if isinstance(tag, str)] if isinstance(given, list) else []
    return {**kept, **({"tags": tags} if tags else {})}
