"""The errors for what a user can do wrong and mend."""

import errno


class UserError(ValueError):
    """A mistake in a command, a recipe or a file. The message names the value and the remedy; the CLI prints no traceback."""


class DiskFullError(UserError):
    """There is no room to write. What asked for it is not at fault, and can go on once there is."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the system says that there is no room (or that the quota is used up)."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
