"""Recipes as plain values: found by name, read from YAML, started from one another, changed by overrides and by rules."""

import copy
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainers.errors import UserError
from trainers.recipes.checked_dataclasses import nearest
from trainers.recipes.safe_yaml import load_yaml

logger = logging.getLogger(__name__)

RECIPE_FOLDER = Path(__file__).parent
DATA_ROLES = ("train", "validation", "test")
# Ways to say one thing. Of these a later layer (a file over its `base`, an override over a file) replaces the others.
BATCH_KEYS = ("batch_size", "batch_seconds", "batch_tokens")
# Recipes that were files of their own and are runs of `paper_study` now.
_PAPER = re.compile(r"paper_(small|medium|large-v2)_(da|nl|en)(_lora)?(\.yaml)?")


def find_recipe(source: str | Path) -> Path:
    """The file that `source` names: a path, or a recipe of the project with or without `.yaml`."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    packaged = RECIPE_FOLDER / f"{path.name.removesuffix('.yaml')}.yaml"
    if len(path.parts) == 1 and packaged.is_file():
        return packaged
    names = sorted(item.stem for item in RECIPE_FOLDER.glob("*.yaml"))
    raise UserError(
        f"The recipe {str(source)!r} does not exist.{nearest(path.stem, names)} Recipes of the project: {', '.join(names)}."
    )


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, merged over that of its `base`."""
    if path in seen:
        raise UserError(f"base goes round in a circle: {' -> '.join(item.name for item in (*seen, path))}.")
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys and values, such as `audio_model: openai/whisper-small`.")
    for part in (values, values.get("run")):
        if isinstance(part, Mapping) and not _is_complete(part):
            refuse_two_batches([key for key in BATCH_KEYS if part.get(key) is not None], str(path))
    base = values.pop("base", None)
    return values if base is None else merge(read_base(path, base, (*seen, path)), values)


def read_base(path: Path, base: Any, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What `base: NAME` in the file `path` names: a file beside it, or a recipe of the project."""
    beside = path.parent / str(base)
    if not beside.is_file() and (paper := paper_recipe(base)) is not None:
        return paper
    return read_yaml(beside if beside.is_file() else find_recipe(str(base)), seen)


@dataclass
class Rule:
    """Keys of the training recipe (dotted) to `set` in the runs whose grid values are those of `when` (one, or a list)."""

    when: dict[str, Any]
    set: dict[str, Any]


def matches(point: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a point has all the values of a condition; a list in it means any of them."""

    def fits(name: str, wanted: Any) -> bool:
        value = point[name]
        return value == wanted or (isinstance(wanted, list) and value in wanted)

    return all(fits(name, wanted) for name, wanted in condition.items())


def run_values(run: Mapping[str, Any], rules: Sequence[Rule], point: Mapping[str, Any]) -> dict[str, Any]:
    """The training recipe of one point of a study's grid: `run`, the rules that fit, and the point's own values."""
    values = dict(run)
    values.setdefault("checkpoint_form", "adapter")  # two hundred copies of a 3B model are nobody's wish
    for name in ("audio_model", "text_model", "seed", "prune_encoder_layers"):
        values[name] = point[name]
    if not point["lora"]:
        values["lora"] = None
    elif not values.get("lora"):
        values["lora"] = {}
    for rule in rules:
        if matches(point, rule.when):
            values = apply_overrides(values, [f"{key}={json.dumps(value)}" for key, value in rule.set.items()])
    if point["language"] != "all":
        roles = [role for role in DATA_ROLES if values.get(role)]
        values = apply_overrides(values, [f"{role}.language={json.dumps(point['language'])}" for role in roles])
    return values


def with_base(run: Any, path: Path) -> Any:
    """A study's `run`, merged over what its `base` names; `path` is the study's file."""
    if isinstance(run, str):
        run = {"base": run}
    if not isinstance(run, dict) or "base" not in run:
        return run
    return merge(read_base(path, run["base"]), {name: value for name, value in run.items() if name != "base"})


def paper_recipe(source: Any) -> dict[str, Any] | None:
    """The values of a run of `paper_study` by the name that it had as a recipe file; None for any other name."""
    match = _PAPER.fullmatch(str(source))
    if match is None:
        return None
    path = find_recipe("paper_study")
    study = read_yaml(path)
    run = with_base(study["run"], path)
    size, language, lora = match[1], match[2], match[3] is not None
    point = {
        "audio_model": f"openai/whisper-{size}", "text_model": run["text_model"], "language": language, "lora": lora,
        "prune_encoder_layers": 0, "selection": "last", "healing": "none", "seed": run["seed"],
    }  # fmt: skip
    logger.warning(
        "%s is a run of paper_study now: `slam-asr train paper_study --run whisper-%s-%s-prune0-%s-seed%s`.",
        match[0].removesuffix(".yaml"), size, language, "lora" if lora else "projector", run["seed"],
    )  # fmt: skip
    rules = [Rule(**rule) for rule in study["rules"]]
    return {**run_values(run, rules, point), "name": match[0].removesuffix(".yaml")}


def refuse_two_batches(given: Sequence[str], where: str) -> None:
    """
    Raises:
        UserError: more than one way to fill a batch is given.
    """
    if len(given) > 1:
        wins = "batch_seconds" if "batch_seconds" in given else "batch_tokens"
        raise UserError(
            f"{where} gives {' and '.join(given)}, which are ways to say one thing: keep one. "
            f"{wins} would win over batch_size: leave batch_size out to fill batches by it, or leave {wins} out."
        )


def _is_complete(values: Mapping[str, Any]) -> bool:
    """Whether a run wrote these values: every key stands there, and `batch_size` at its default beside what is in force."""
    return values.get("batch_size") is not None and all(key in values for key in BATCH_KEYS)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; mappings in both are merged in turn, anything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
        _drop_others(merged, key, over)
    return merged


def _drop_others(target: dict[str, Any], key: str, keep: Iterable[str]) -> None:
    """Take away the other ways to fill a batch when `key` is one and set."""
    if key in BATCH_KEYS and target[key] is not None:
        for other in BATCH_KEYS:
            if other != key and other not in keep:
                target.pop(other, None)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with each `key=value` set; keys are dotted, values are YAML. A key reaches into every element of a list.

    Raises:
        UserError: an override without `=`, or a path through something that is not a mapping.
    """
    result = copy.deepcopy(dict(values))
    batches: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"The override {override!r} is not of the form key=value, such as max_steps=100.")
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"The value of the override {override!r} is not YAML: {reason}") from error
        name = key.rpartition(".")[2]
        if name in BATCH_KEYS and key in (name, f"run.{name}") and value is not None and name not in batches:
            batches.append(name)
            refuse_two_batches(batches, "The command line")
        _assign(result, key.split("."), value, key)
    return result


def _assign(target: Any, path: list[str], value: Any, key: str) -> None:
    if isinstance(target, list):
        if path[0].isdigit() and int(path[0]) < len(target) and len(path) > 1:
            _assign(target[int(path[0])], path[1:], value, key)
        elif path[0].isdigit():
            raise UserError(f"The override {key!r} names element {path[0]} of a list of {len(target)}.")
        else:
            for element in target:
                _assign(element, path, value, key)
        return
    if isinstance(target, dict) and path[0].isdigit() and len(path) > 1:  # one source, where a list of them may stand
        if int(path[0]) > 0:
            raise UserError(f"The override {key!r} names element {path[0]} of what is one alone.")
        _assign(target, path[1:], value, key)
        return
    if not isinstance(target, dict):
        raise UserError(f"The override {key!r} goes through {target!r}, which has no keys.")
    if len(path) == 1:
        target[path[0]] = value
        _drop_others(target, path[0], ())
        return
    if target.get(path[0]) is None or target[path[0]] is True:  # absent, or a bare `lora: true`
        target[path[0]] = {}
    _assign(target[path[0]], path[1:], value, key)
