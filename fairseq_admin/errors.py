"""The error a user can mend, and others as it tells them."""


class UserError(SystemExit):
    """A mistake in data, options or files: one line that says what is wrong and what to do.

    It is a ``SystemExit``: nobody needs the traceback, and fairseq, which turns every ``Exception``
    of a failed load into "please ensure that the architectures match", lets it pass.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"fairseq_admin: {message}")
        self.message = message


def one_line(error: BaseException) -> str:
    """What *error* is and says, for a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
