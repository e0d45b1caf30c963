"""The errors that a command reports; each message says what happened, where, and what to do."""


def printable(text: str, *, kept: str = "") -> str:
    """Return a text with an escape for each sign that cannot be printed, as those that a terminal obeys, but for `kept`."""
    return "".join(sign if sign.isprintable() or sign in kept else repr(sign)[1:-1] for sign in text)


class IcmError(Exception):
    """Anything that a user can act on; caught once, at the edge of a command."""


class InputError(IcmError):
    """What a user has written cannot be used; its text is one line, in which what it quotes is escaped."""

    def __str__(self) -> str:
        """Return the message, with an escape for each sign that cannot be printed."""
        return printable(super().__str__())


class ConfigError(InputError):
    """A setting that cannot be used: misspelt, of a wrong type, out of range, or of another run's configuration."""


class TaskError(InputError):
    """Data or label words that cannot be used: a missing file, a malformed row, a duplicate id."""


class FitError(IcmError):
    """A job that cannot work on what it was given, such as a pool longer than the model's context."""


class RequestError(IcmError):
    """A request that gave no score; `counter` is the name under which the summary counts it.

    `status` is the HTTP status of an answer that is no 200, `retry_after_s` how long the server asked us to wait, if it did.
    """

    def __init__(
        self, message: str, *, counter: str = "", status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.counter, self.status, self.retry_after_s = counter, status, retry_after_s


class ServerError(IcmError):
    """The model server did not start, died, or does not come back."""


class NoAnswer(RequestError, ServerError):  # noqa: N818
    """A request was not answered: no connection, a broken one, or a server that says it cannot."""


class RateLimited(NoAnswer):
    """A server that works says that requests come too fast: it is waited for, and is not lost."""


class TimedOut(NoAnswer):
    """A request was not answered within its deadline: the server hangs, or is asked for too much at once."""


class ScoringError(RequestError):
    """An answer that is not the label log-probabilities that were asked for, and no further try repairs it."""


class BadAnswer(ScoringError):  # noqa: N818
    """An answer of the right model that is no score; the next try, or another proposal, may have a better one."""


class CheckpointError(IcmError):
    """Saved state that cannot be written, read or used."""


class FolderError(IcmError):
    """The run's folder, or another, cannot be read or written."""


class OutputError(IcmError):
    """Standard output cannot be written."""


class DamagedFile(FolderError, ValueError):  # noqa: N818
    """A file of a run holds something else than this program writes into it."""


class ClusterError(IcmError):
    """Slurm refused the job or cannot be reached."""


class SchedulerError(ClusterError):
    """One of Slurm's commands does not answer; what it was asked is then not known."""

    def __init__(self, words: str, *, is_missing: bool = False) -> None:
        super().__init__(words)
        self.is_missing = is_missing  # there is no such command on this machine


class Interrupted(Exception):  # noqa: N818
    """The run was told to stop, and its state is saved; not an error."""
