"""The one exception that means "you can fix this": the command line prints it and exits with 2."""


class InputError(ValueError):
    """A user's mistake: the message names the value, the place and what would be right."""
