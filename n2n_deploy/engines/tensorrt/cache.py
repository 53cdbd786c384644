"""`EngineCache`: engines that this node built itself, kept for the next start.

An engine takes seconds to minutes to build and fits one library version and GPU only, so each node keeps its own.
Of processes that start together one builds the engine; the others wait for its lock and read the result.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict

from n2n_deploy.bundle.engine_facts import Profile, TensorRTLibrary
from n2n_deploy.core.errors import HostError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.files.locks import locked

LIMIT = 2 << 30
"""Bytes of engines that are kept by default; the least recently used are deleted first."""

BUILD_TIMEOUT = 3600.0
"""Seconds to wait for another process that builds the same engine."""

_DIGEST_BYTES = 32
_REMEDY = "set N2N_DEPLOY_CACHE to a folder of your own"


class EngineKey(BaseModel):
    """Everything that an engine depends on.

    Attributes:
        model: SHA-256 of the ONNX graph.
        library: that builds and runs it.
        version: of the library.
        gpu: name and compute capability.
        precision: of the graph.
        profiles: the shapes it takes.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    library: TensorRTLibrary
    version: str
    gpu: str
    precision: str
    profiles: tuple[Profile, ...]

    @property
    def name(self) -> str:
        """The engine's file name in the cache, without the extension."""
        return _digest(self.model_dump_json().encode())


def cache_folder() -> Path:
    """Return the folder of this user's caches: `$N2N_DEPLOY_CACHE`, or `n2n-deploy` in the system's cache folder.

    On Linux the latter is `$XDG_CACHE_HOME`, by default `~/.cache`.
    """
    return Path(os.environ.get("N2N_DEPLOY_CACHE") or platformdirs.user_cache_path("n2n-deploy", appauthor=False))


class EngineCache:
    """Engines on disk, for one user.

    Args:
        folder: of the cache, by default `cache_folder()`; created if missing, accessible to its owner only.
        limit: bytes that are kept at most; the engine just built is kept whatever its size.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or cache_folder()
        self.limit = limit

    def get(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """Return the engine of a key: from the cache, or built now and kept.

        Args:
            key: of the engine.
            build: builds it; called by one process at a time for a key. Its exceptions pass through.

        Raises:
            HostError: the folder cannot be created or written to, others can write to it, or another process has been
                building this engine for longer than `BUILD_TIMEOUT`.
        """
        self._check_folder()
        path = self.folder / f"{key.name}.engine"
        if (engine := _read(path)) is not None:
            return engine
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise HostError(f"{self.folder}: the engine cache is not writable; {_REMEDY}")
        with locked(self.folder / f"{key.name}.lock", timeout=BUILD_TIMEOUT):
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
            HostError: the folder cannot be created, or others can write to it.
        """
        self._check_folder()
        path = self.folder / f"{_digest(place.encode() + engine)}.kernels"
        self._evict(path)
        return path

    def _check_folder(self) -> None:
        """Create the folder if missing; refuse one that others can write to: loading an engine runs its code."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.folder.stat()
        except OSError as error:
            raise HostError(
                f"{self.folder}: the engine cache cannot be created ({error.strerror}); {_REMEDY}"
            ) from error
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostError(f"{self.folder}: others can write to the engine cache; run chmod go-w on it, or {_REMEDY}")

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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _read(path: Path) -> bytes | None:
    """Return an intact engine and mark it as used just now; None if there is none."""
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
