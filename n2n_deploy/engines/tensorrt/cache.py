"""`EngineCache`: engines that this node built itself, kept for the next start.

An engine takes seconds to minutes to build and fits one library version and GPU only, so each node keeps its own.
Processes that start together build an engine once: the others wait for the lock and read the result.
"""

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from n2n_deploy.bundle.engine_facts import Flavour, Profile
from n2n_deploy.core.errors import HostError
from n2n_deploy.files.atomic import atomic_write

LIMIT = 2 << 30
"""Bytes of engines that are kept by default; the least recently used go first."""

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that an engine depends on: with any of it different, it is another engine.

    Attributes:
        model: SHA-256 of the ONNX graph.
        flavour: which library.
        version: of the library.
        gpu: name and compute capability.
        precision: of the graph.
        profiles: the shapes it takes.
    """

    model: str
    flavour: Flavour
    version: str
    gpu: str
    precision: str
    profiles: tuple[Profile, ...]

    @property
    def name(self) -> str:
        """A file name for it."""
        fields = asdict(self) | {"profiles": [profile.model_dump() for profile in self.profiles]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:40]


def cache_folder() -> Path:
    """Return the folder of this user's caches: `$N2N_DEPLOY_CACHE`, or n2n-deploy in the XDG cache folder."""
    if named := os.environ.get("N2N_DEPLOY_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2n-deploy"


class EngineCache:
    """Engines on disk, for one user.

    Args:
        folder: where; by default `cache_folder()`. Made where it is missing, readable by its owner alone.
        limit: bytes that are kept at most; the engine just built stays whatever its size.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or cache_folder()
        self.limit = limit

    def get(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """Return the engine of a key: from the cache, or built now and kept.

        Args:
            key: what is wanted.
            build: makes it; called by one process at a time for a key. Its exceptions pass through.

        Raises:
            HostError: the folder cannot be made or written to, or others could have put an engine into it.
        """
        self._check_folder()
        path = self.folder / f"{key.name}.engine"
        if (engine := _read(path)) is not None:
            return engine
        with _locked(self.folder / f"{key.name}.lock"):
            if (engine := _read(path)) is not None:
                return engine
            engine = build()
            with atomic_write(path) as file:
                file.write(hashlib.sha256(engine).digest() + engine)
        self._evict(path)
        return engine

    def kernels(self, engine: bytes, place: str) -> Path:
        """Return the file in which TensorRT for RTX keeps the kernels it compiled for an engine.

        Args:
            engine: serialised.
            place: what the kernels fit: version of the library, name and compute capability of the GPU.

        Raises:
            HostError: as for `get`.
        """
        self._check_folder()
        path = self.folder / f"{hashlib.sha256(place.encode() + engine).hexdigest()[:40]}.kernels"
        self._evict(path)
        return path

    def _check_folder(self) -> None:
        """Deserialising an engine runs its code: none may come from a folder that others can write to."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.folder.stat()
        except OSError as error:
            raise HostError(
                f"{self.folder}: the engine cache cannot be made ({error.strerror}); "
                "set N2N_DEPLOY_CACHE to a folder of yours"
            ) from error
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostError(
                f"{self.folder}: others can write to the engine cache; chmod go-w it, or set N2N_DEPLOY_CACHE to a "
                "folder of yours"
            )

    def _evict(self, keep: Path) -> None:
        """Delete the least recently used engines beyond the limit."""
        entries = []
        for path in (*self.folder.glob("*.engine"), *self.folder.glob("*.kernels")):
            with suppress(FileNotFoundError):  # another process may be evicting too
                status = path.stat()
                entries.append((path != keep, -status.st_mtime_ns, status.st_size, path))
        total = 0
        for spare, _, size, path in sorted(entries):
            total += size
            if spare and total > self.limit:
                path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """Return an intact engine, marked as used just now; None where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, engine = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(engine).digest() != digest:
        return None
    with suppress(OSError):
        os.utime(path)
    return engine


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel takes back when the process ends, however it ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"{path.parent}: the engine cache cannot be written to ({error.strerror}); "
            "set N2N_DEPLOY_CACHE to a folder of yours"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
