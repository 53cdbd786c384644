"""The exception tree: what a caller can catch, and the exit code each kind ends the command line with."""


class N2NError(Exception):
    """Base of every error this package raises on purpose.

    The message is one line that names the file or value, what was expected, what was found and what to do.
    """

    exit_code = 1


class DataError(N2NError):
    """A micrograph, table or other input file cannot be used. It costs that file and nothing else."""


class BundleError(N2NError):
    """A model bundle is damaged, altered, of a newer format, or does not do here what it did when it was made."""


class UsageError(N2NError, ValueError):
    """An option or argument, or a combination of them, is invalid."""

    exit_code = 2


class HostError(N2NError):
    """This machine lacks something: a library, a GPU, memory, disk space or permission."""

    exit_code = 3


class OutOfMemoryError(HostError, MemoryError):
    """The network needs more memory at once than there is; smaller tiles may do."""
