"""The one exception for what a user can mend."""


class BdpoError(ValueError):
    """Bad input or a state the user can mend.

    The message is one sentence (or two) that says where the fault is and how to mend it; the command
    line prints it without a traceback and ends with exit code 2.
    """


def first_line(error: Exception) -> str:
    """What an error says, without what it says below its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
