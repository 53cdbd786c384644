"""Files that take their name only when they are complete."""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from n2n_deploy.core.errors import HostError

TEMPORARY_SUFFIX = ".n2n-tmp"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LONGEST_NAME = 200  # bytes of the final name kept in the temporary one; file systems take 255
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG}


@contextmanager
def atomic_write(path: Path | str, *, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a binary file that becomes `path` if the block ends without an exception, and is removed otherwise.

    The bytes go to a hidden temporary file in the same folder (created if missing), are flushed to the disk, and the
    file is renamed to `path`. On any exception, including KeyboardInterrupt, the temporary file is removed and an
    earlier file at `path` stays. The umask determines the new file's permissions.

    Args:
        path: the final name.
        size: bytes that will be written, if known; the message about a full disk states it.

    Yields:
        The open file; it can be written, read back and seeked. Only write to it within the block: an `OSError` without
        a file name is attributed to this file.

    Raises:
        HostError: the folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    name = os.fsencode(path.name)[:_LONGEST_NAME].decode("utf-8", errors="ignore")
    temporary = path.with_name(f".{name}.{_machine()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    stream: BinaryIO | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _open_locked(temporary)
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        temporary.replace(path)
        stream.close()
    except BaseException as error:
        _abandon(stream, temporary)
        if isinstance(error, OSError) and error.filename in (None, str(temporary), str(path.parent)):
            raise _host_error(error, path, size) from error
        raise
    _sync_folder(path.parent)


def make_writable_folder(folder: Path) -> None:
    """Create a folder if it is missing, and check that files can be written to it, before any work is done for them.

    Raises:
        HostError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in _NO_FOLDER and (taken := _file_in_the_way(folder)) is not None:
            raise HostError(f"{taken}: is a file, expected a folder; choose another output folder") from error
        raise HostError(
            f"{folder}: cannot be written to ({error.strerror}); change its permissions or choose another output folder"
        ) from error


def remove_stale_temporaries(folder: Path, *, older_than: float = 600.0) -> list[Path]:
    """Remove the temporary files that killed runs left in a folder and its subfolders.

    A running writer on this machine is recognised by the lock on its file, one on another machine by the file's age.

    Args:
        folder: to search; it may be missing.
        older_than: seconds since the last byte was written, for files of other machines.

    Returns:
        The files removed.
    """
    removed = []
    for path in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()
            elif not _remove_unlocked(path):
                continue
            removed.append(path)
    return removed


def _file_in_the_way(folder: Path) -> Path | None:
    """The part of a folder's path that is a file, if any."""
    with suppress(OSError):  # a name too long for a file cannot exist
        return next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    return None


def _machine() -> str:
    """Eight digits that identify this machine until it reboots: its kernel knows all locks of its own processes."""
    try:
        return _BOOT_ID.read_text()[:8]
    except OSError:
        return "unknown"


def _open_locked(temporary: Path) -> BinaryIO:
    """Create a temporary file that stays locked while it is open, if the file system has locks."""
    while True:
        stream = temporary.open("x+b")
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        if temporary.exists():  # if nobody removed it as a dead writer's before it was locked
            return stream
        stream.close()


def _remove_unlocked(path: Path) -> bool:
    """Remove a temporary file of this machine if its writer is dead; False if it is alive, or nobody can tell."""
    if f".{_machine()}-" not in path.name or not _BOOT_ID.exists():
        return False
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    return True


def _abandon(stream: BinaryIO | None, temporary: Path) -> None:
    """Close and remove the temporary file."""
    # Closing flushes the buffer, which fails again on a full disk.
    with suppress(OSError):
        if stream is not None:
            stream.close()
    with suppress(OSError):
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename durable, if the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _host_error(error: OSError, path: Path, size: int | None) -> HostError:
    """Turn a system error into one line that names the folder and the remedy."""
    folder = path.parent
    if error.errno in _DISK_FULL:
        facts = [] if size is None else [f"{size} bytes needed"]
        with suppress(OSError):
            facts.append(f"{shutil.disk_usage(folder).free} bytes free, not counting quotas")
        return HostError(
            f"{folder}: not enough disk space for {path.name} ({', '.join(facts) or error.strerror}); "
            "free some space or choose another output folder"
        )
    if error.errno in _NO_PERMISSION:
        return HostError(
            f"{folder}: {path.name} cannot be written there ({error.strerror}); "
            "change the folder's permissions or choose another output folder"
        )
    if error.errno in _NO_FOLDER:
        if (taken := _file_in_the_way(folder)) is not None:
            return HostError(f"{taken}: is a file, expected a folder for {path.name}; choose another output folder")
        return HostError(f"{folder}: cannot hold {path.name} ({error.strerror}); choose another output folder or name")
    return HostError(f"{folder}: writing {path.name} failed ({error.strerror or error}); try another output folder")
