"""YAML of strangers costs no more than its size."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import UserError
from trainers.recipe import load_recipe
from trainers.recipes.safe_yaml import load_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="abc: -'é\n"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abc"), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 200000 values"),
        ("a: &a [*a]", "part of"),
        ("[" * 200_000, "too deep"),
        ("# " + "x" * 6_000_000, "characters"),
        ("a: 2026-99-99", "none of its kind"),
        ("a: !!bool x", "none of its kind"),
        ("a: !!timestamp x", "none of its kind"),
        ("a: " + "1" * 5_000, "none of its kind"),
    ],
)
def test_bombs_and_nonsense_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match=reason):
        load_yaml(text)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=f"recipe.yaml is not YAML: .*{reason}"):
        load_recipe(str(tmp_path / "recipe.yaml"))


@settings(max_examples=30, deadline=None)
@given(PLAIN)
def test_plain_values_are_read_as_ever(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert load_yaml(text) == yaml.safe_load(text) == value


def test_aliases_in_reason_are_read() -> None:
    assert load_yaml("a: &a {r: 8}\nb: *a") == {"a": {"r": 8}, "b": {"r": 8}}
    assert load_yaml("") is None
