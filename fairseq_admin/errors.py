"""The error a user can mend."""


class UserError(SystemExit):
    """A mistake in data, options or files: one line that says what is wrong and what to do.

    It is a ``SystemExit``: nobody needs the traceback, and fairseq, which turns every ``Exception``
    of a failed load into "please ensure that the architectures match", lets it pass.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"fairseq_admin: {message}")
        self.message = message
