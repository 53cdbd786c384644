"""The exception tree: what a caller can catch, and the exit code each kind ends the command line with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Begin the message of a `DataError` with the file's path, unless the file is already named in it."""
    try:
        yield
    except DataError as error:
        if path.name in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
