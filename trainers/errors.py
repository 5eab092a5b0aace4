"""The errors for what a user can do wrong and mend."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence


class UserError(ValueError):
    """
    A mistake in a command, a recipe or a file. The message names the value and the remedy; the CLI prints no traceback.

    `details` are further lines, one thing each, where there is a list to tell.
    """

    def __init__(self, *arguments: object, details: Sequence[str] = ()) -> None:
        super().__init__(*arguments)
        self.details = tuple(details)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {line}" for line in self.details)])


class DiskFullError(UserError):
    """There is no room to write. What asked for it is not at fault, and can go on once there is."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the system says that there is no room (or that the quota is used up)."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def listed(items: Sequence[str], most: int = 5, mark: str = ", ") -> str:
    """The first of some items, and how many more there are, for a message; `mark` stands between two."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return mark.join(items[:most]) + more


@contextlib.contextmanager
def reading_files_of(name: str) -> Iterator[None]:
    """
    Around what reads a model's files: libraries index and call what lies in them without a look.

    Raises:
        UserError: in place of what says nothing to a user. Errors that say themselves what is wrong pass as they are.
    """
    try:
        yield
    except OSError as error:
        if name in str(error) or is_disk_full(error):
            raise
        here = "" if os.path.isdir(name) else "There is no such folder here, and "
        raise UserError(f"The model {name!r} cannot be read. {here}{' '.join(str(error).split())}") from error
    except (ValueError, ImportError, RecursionError):
        raise
    except Exception as error:  # the tokenizers' own is a bare Exception
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise UserError(
            f"The files of {name!r} cannot be read: something in them has another form than it should "
            f"({type(error).__name__}: {reason}). Get the model again, or mend the file; --debug says where."
        ) from error
