"""The error for mistakes that a user can make and mend."""


class UserError(ValueError):
    """A mistake in a command, a recipe or a file. The message names the value and the remedy; the CLI prints no traceback."""
