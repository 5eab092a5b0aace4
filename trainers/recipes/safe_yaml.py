"""YAML that others wrote: read without running code, and refused before a few lines become gigabytes."""

from typing import Any

import yaml

MOST_CHARACTERS = 5_000_000
MOST_VALUES = 200_000  # with every alias counted as often as it is used


def load_yaml(text: str) -> Any:
    """
    The value of a YAML document.

    Raises:
        yaml.YAMLError: it is no YAML, has impossible values, is too long or too deeply nested, or its aliases stand for more than 200,000 values.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters are more than the {MOST_CHARACTERS} that are read")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None
    except (ValueError, KeyError, AttributeError) as error:  # "2026-99-99", "!!bool x": PyYAML does not look
        raise yaml.YAMLError(f"a value is none of its kind ({error})") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Values in `node`, aliases expanded; `known` holds the nodes done, and None for those begun."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.YAMLError("an alias stands for what it is part of")
        return found
    known[id(node)] = None
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    total = 1 + sum(_count(part, known) for part in parts)
    if total > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES} values")
    known[id(node)] = total
    return total
