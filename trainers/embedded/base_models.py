"""Base models by name: those that come with the project are folders here."""

from pathlib import Path

from trainers.errors import UserError

EMBEDDED_BASES = Path(__file__).parent / "bases"


def base_model(name: str) -> str:
    """The folder of a base model that comes with the project (`embedded/encoder`, `embedded/lm`), or `name` itself.

    Raises:
        UserError: an embedded base of that name does not exist.
    """
    kind, _, part = name.partition("/")
    if kind != "embedded":
        return name
    folder = EMBEDDED_BASES / part
    if not (folder / "config.json").is_file():
        there = sorted(f"embedded/{path.parent.name}" for path in EMBEDDED_BASES.glob("*/config.json"))
        raise UserError(
            f"There is no base model {name!r}. Those that come with the project: {', '.join(there) or 'none'}."
        )
    return str(folder)
