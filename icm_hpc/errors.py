"""The errors that a command reports; each message says what happened, where, and what to do."""


class IcmError(Exception):
    """Anything that a user can act on; caught once, at the edge of a command."""


class ConfigError(IcmError):
    """A setting that cannot be used: misspelt, of a wrong type, out of range, or of another run's configuration."""


class TaskError(IcmError):
    """Data or label words that cannot be used: a missing file, a malformed row, a duplicate id."""


class FitError(IcmError):
    """A job that cannot work on what it was given, such as a pool longer than the model's context."""


class ServerError(IcmError):
    """The model server did not start, died, or cannot be reached."""


class ScoringError(IcmError):
    """An answer of the server that is not the label log-probabilities that were asked for."""


class CheckpointError(IcmError):
    """Saved state that cannot be written, read or used."""


class ClusterError(IcmError):
    """Slurm refused the job or cannot be reached."""
