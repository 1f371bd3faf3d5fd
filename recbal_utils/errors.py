"""The one exception type of the library."""


class RecbalError(ValueError):
    """Bad input: the message says what is wrong, where, and what to do."""
