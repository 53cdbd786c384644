"""Exclusive locks between processes, on files that exist for nothing else."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from n2n_deploy.core.errors import HostError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[bool]:
    """Hold an exclusive lock until the block ends.

    The kernel releases the lock when the process ends, even if it is killed. The lock file stays, because removing it
    would let two processes lock two files of the same name. Some network file systems have no locks; there the block
    runs without one.

    Args:
        path: the lock file; created if missing, with its folder. Never a file with content.
        timeout: seconds to wait for another process; a negative number waits as long as it takes.

    Yields:
        Whether the lock is held.

    Raises:
        HostError: the lock file cannot be created, or another process held the lock for all of `timeout`.
    """
    # A lock file whose existence is the lock would outlive a killed process.
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise HostError(
            f"{path}: another process has held this lock for {timeout:g} s; wait until it ends, or stop it"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise HostError(
                f"{path}: the lock file cannot be opened ({error.strerror or error}); make its folder writable"
            ) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()
