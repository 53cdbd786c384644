"""`GridCache`: filters and frequency grids of one device, kept from one micrograph to the next."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from n2n_deploy.device.array_types import Array

LIMIT = 256 << 20
"""Bytes of grids that a device keeps."""


class GridCache:
    """A least-recently-used cache of arrays, bounded in bytes and shared by all threads.

    Args:
        share: called once with each new array, before any other thread gets it.
        retire: called after arrays were dropped, before their memory may be used again.
        limit: bytes; the last array stays even where it alone is larger.
    """

    def __init__(self, share: Callable[[Array], None], retire: Callable[[], None], limit: int = LIMIT) -> None:
        self._share, self._retire, self.limit = share, retire, limit
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return the array kept under `key`, made by `make` the first time. Callers share it: do not change it."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        # Two threads may both make it; that costs time once, and holding the lock would cost it always.
        array = make()
        self._share(array)
        with self._lock:
            array = self._arrays.setdefault(key, array)
            dropped = []
            while len(self._arrays) > 1 and sum(kept.nbytes for kept in self._arrays.values()) > self.limit:
                dropped.append(self._arrays.popitem(last=False))
            if dropped:
                self._retire()
        return array

    def clear(self) -> None:
        """Drop all arrays."""
        with self._lock:
            dropped = list(self._arrays.values())
            self._arrays.clear()
            if dropped:
                self._retire()
