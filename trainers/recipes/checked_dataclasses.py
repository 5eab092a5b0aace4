"""Dataclasses from plain mappings (YAML, JSON), checked: an unknown key or a value of the wrong type is an error that says where."""

import copy
import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from trainers.errors import UserError

T = TypeVar("T")
# Of a field's metadata. REST: a mapping that takes the keys which another class knows; the value names them when called.
# CHOICES: gives, when called, the values that the field may have; it is called for others than the default only.
# LATER: left out of `content` at its default, so that what was identified before the field was there keeps its identity.
REST, CHOICES, LATER = "rest", "choices", "later"


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def build(cls: type[T], values: Mapping[str, Any], where: str = "", also: Collection[str] = ()) -> T:
    """An instance of the dataclass `cls` from `values`, nested dataclasses included.

    Args:
        cls: a dataclass whose fields are annotated with scalars, lists, mappings, optional types or dataclasses.
        values: the mapping; missing keys take the field's default.
        where: dotted path of `values` in the file, for messages.
        also: keys that the file may have and `values` has no more, for messages.

    Raises:
        UserError: an unknown key (with the nearest known one), a missing required key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'The recipe'} must be a mapping of keys to values, not {_shown(values)}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    rest = next((name for name, field in fields.items() if REST in field.metadata), None)
    named = {name for name in fields if name != rest}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key in named:
            if CHOICES in fields[key].metadata and value != fields[key].default:
                _check_choice(value, fields[key].metadata[CHOICES](), path)
            arguments[key] = convert(value, hints[key], path)
            continue
        known = named if rest is None else {*named, *fields[rest].metadata[REST]()}
        if rest is None or key not in known:
            raise UserError(
                f"Unknown key {path!r}.{nearest(str(key), sorted({*known, *also}))} Known keys here: {', '.join(sorted({*named, *also}))}"
                f"{'' if rest is None else ' and those of the class behind them'}."
            )
        arguments.setdefault(rest, {})[key] = value
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            raise UserError(f"The key {f'{where}.{name}' if where else name!r} is missing; it has no default.")
    return cls(**arguments)


def plain(spec: Any) -> Any:
    """A dataclass as plain mappings and lists, of which `build` makes the same again."""
    return _plain(spec, lambda field, value: True)


def content(spec: Any, leave: Iterable[str] = ()) -> dict[str, Any]:
    """What `plain` gives without the fields of `leave`, and without `LATER` fields at their defaults."""
    leave = set(leave)

    def counts(field: dataclasses.Field[Any], value: Any) -> bool:
        return not (field.metadata.get(LATER) and value == default_of(field))

    return {name: value for name, value in _plain(spec, counts).items() if name not in leave}


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default value; `dataclasses.MISSING` when it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any, keeps: Callable[[dataclasses.Field[Any], Any], bool]) -> Any:
    if dataclasses.is_dataclass(value):
        found: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            own = getattr(value, field.name)
            if REST in field.metadata:
                found.update(copy.deepcopy(own))
            elif keeps(field, own):
                found[field.name] = _plain(own, keeps)
        return found
    if isinstance(value, list | tuple):
        return [_plain(item, keeps) for item in value]
    return copy.deepcopy(value)


def check_numbers(
    spec: object, where: str = "", *, above_zero: str = "", from_zero: str = "", fractions: str = "", shares: str = ""
) -> None:
    """Check fields of a dataclass, each argument their names apart by spaces; None passes, NaN and infinity never do.

    Args:
        where: what is put before a name in messages, such as `lora.`.
        above_zero, from_zero: numbers that must be greater than 0, or 0 at the least.
        fractions: numbers from 0 to 1.
        shares: numbers from 0 to below 1, where the whole would leave another nothing.

    Raises:
        UserError: a number is out of its range.
    """
    for names, fits, says in (
        (above_zero, lambda number: number > 0, "must be above 0"),
        (from_zero, lambda number: number >= 0, "must be 0 or more"),
        (fractions, lambda number: 0 <= number <= 1, "is a fraction: give a number from 0 to 1"),
        (shares, lambda number: 0 <= number < 1, "must be from 0 to below 1"),
    ):
        for name in names.split():
            value = getattr(spec, name)
            if value is not None and not (math.isfinite(value) and fits(value)):
                raise UserError(f"{where}{name}={value} {says}.")


def expand_home(spec: object, names: str) -> None:
    """Put the user's folder in place of a leading `~` in path fields of a dataclass, their names apart by spaces."""
    for name in names.split():
        if (value := getattr(spec, name)) is not None:
            setattr(spec, name, os.path.expanduser(value))


def convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`, or a UserError that names `path`. Integers pass for floats, "1e-4" too."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, path)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)  # type: ignore[arg-type]
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{path} must be a list, not {_shown(value)}.")
        (item,) = typing.get_args(hint)
        return [convert(element, item, f"{path}.{index}") for index, element in enumerate(value)]
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{path} must be a mapping, not {_shown(value)}.")
        return dict(value)
    if origin is typing.Literal:
        _check_choice(value, typing.get_args(hint), path)
        return value
    return _convert_scalar(value, hint, path)


def _check_choice(value: Any, choices: Collection[Any], path: str) -> None:
    if value not in choices:
        hint = nearest(str(value), map(str, choices))
        raise UserError(
            f"{path} is {value!r}; it must be one of {', '.join(map(repr, choices))}.{hint}{_yaml_trap(value)}"
        )


def _convert_union(value: Any, hint: Any, path: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    failures = []
    for option in options:
        try:
            return convert(value, option, path)
        except UserError as error:
            failures.append(str(error))
    if len(failures) == 1:
        raise UserError(failures[0])
    if isinstance(value, (list, tuple, Mapping)):  # the message about the container says more than one about scalars
        failures = [text for text in failures if not text.startswith(f"{path} must be")] or failures
        raise UserError(failures[0])
    names = " or ".join(_type_name(option) for option in options)
    raise UserError(f"{path} must be {names}, not {_shown(value)}.{_yaml_trap(value)}")


def _convert_scalar(value: Any, hint: Any, path: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    if not accepted:
        raise UserError(f"{path} must be {_type_name(hint)}, not {_shown(value)}.{_yaml_trap(value)}")
    return value


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(hint) is list:
        return "a list"
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _yaml_trap(value: Any) -> str:
    """YAML reads a bare `no` as false: say so where text was wanted."""
    return (
        ' YAML reads no, yes, on and off as true or false: quote the text, as in "no".'
        if isinstance(value, bool)
        else ""
    )
