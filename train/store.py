"""The patch store: reading random patches from the HDF5 files of all micrographs.

The store may be larger than memory: a batch reads only its own patches, one chunk each.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError

STORE_FORMAT = 1

_OPEN_FILES = 64


class PatchStore:
    """Pairs of patches, numbered across all files of a store, read on demand.

    Args:
        files: as in `Preparation.files`.

    Attributes:
        corners: (y, x) of each patch, an array (n, 2) for each micrograph.
        counts: number of patches of each micrograph.

    Raises:
        DataError: a file is damaged, or of a newer format.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._open: OrderedDict[int, h5py.Dataset] = OrderedDict()
        self.corners: list[NDArray[np.int64]] = [
            self._pairs(index).file["corners"][:] for index in range(len(self.files))
        ]
        self.counts = np.array([len(corners) for corners in self.corners], dtype=np.int64)
        self._scales: list[NDArray[np.float32] | None] = [
            file["scales"][:] if "scales" in (file := self._pairs(index).file) else None
            for index in range(len(self.files))
        ]
        self._ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the pairs with these numbers, in this order, (n, 2, side, side) as stored.

        Of exposures that are to be recorrupted, both of a pair are the exposure.
        """
        pairs = []
        for index in indices:
            number = int(np.searchsorted(self._ends, index, side="right"))
            start = self._ends[number] - self.counts[number]
            try:
                pair = self._pairs(number)[index - start]
            except OSError as error:
                raise _damaged(self.files[number], error) from error
            pairs.append(np.broadcast_to(pair, (2, *pair.shape[1:])))
        return np.stack(pairs)

    @property
    def recorrupted(self) -> bool:
        """Whether patches are exposures to be recorrupted; those of counts, which are thinned, can be among them."""
        return any(scales is not None for scales in self._scales)

    def amplitudes(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the noise amplitudes of these patches, (n, 2·side, side + 1), in their units; 0 for halves.

        Where the store has nothing to recorrupt, they are (n, 0, 0).
        """
        if not self.recorrupted:
            return np.zeros((len(indices), 0, 0), np.float16)
        side = self._pairs(0).shape[-1]
        made = np.zeros((len(indices), 2 * side, side + 1), np.float16)
        for index, amplitude in zip(indices, made, strict=True):
            number = int(np.searchsorted(self._ends, index, side="right"))
            if (scales := self._scales[number]) is None:
                continue
            scale = scales[index - self._ends[number] + self.counts[number]]
            try:
                amplitude[:] = self._pairs(number).file["amplitude"][:] * scale
            except OSError as error:
                raise _damaged(self.files[number], error) from error
        return made

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].file.close()

    def _pairs(self, number: int) -> h5py.Dataset:
        """The pairs of a file, which stays open with the other recently used ones."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        try:
            file = h5py.File(self.files[number], "r")
        except OSError as error:
            raise _damaged(self.files[number], error) from error
        if file.attrs.get("format", STORE_FORMAT + 1) > STORE_FORMAT:
            raise DataError(f"{self.files[number]}: patch file of a newer format; update n2n-deploy")
        self._open[number] = file["pairs"]
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].file.close()
        return self._open[number]


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged patch file ({error}); delete it and train again, which remakes only this file")
