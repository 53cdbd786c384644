"""`Device`: where arrays live and who computes on them. The host and each GPU implement it.

Code above asks the device of an array (`arrays.device_of`) or of a session, and says the same to either kind.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from numpy.typing import DTypeLike, NDArray

from n2n_deploy.device.array_types import Array, ArrayModule

Result = TypeVar("Result")

Statistics = tuple[float, float, float, float]
"""Minimum, maximum, mean and standard deviation."""


class Device(Protocol):
    """The host, or one GPU.

    Attributes:
        name: "cpu", or "cuda:N".
        is_gpu: whether it has memory of its own, which arrays are copied to and from.
        xp: NumPy, or CuPy, for functions of its arrays.
        workers: threads that share the blocks of rows of one array; 1 on a GPU.
    """

    name: str
    is_gpu: bool
    xp: ArrayModule
    workers: int

    def lane(self) -> AbstractContextManager[None]:
        """Let this thread work on the device, and wait for its work at the end.

        On a GPU the thread gets a stream of its own, the current one within the context; on the host, the device's
        number of workers.
        """
        ...

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Mark a stage of the work for a profiler (NVTX); costs nothing worth mentioning without one."""
        ...

    def synchronize(self) -> None:
        """Wait until what this thread has asked for on its current stream is done."""
        ...

    def to_device(self, array: Array) -> Array:
        """Return an array of the host, or of this device, as one of this device; on a GPU only within `lane`."""
        ...

    def to_host(self, array: Array, *, pinned: bool = False) -> NDArray[Any]:
        """Return an array of this device, complete, as a NumPy array.

        Args:
            array: on this device or on the host.
            pinned: leave it in pinned memory, which is scarce and to be given back soon, and save a copy.
        """
        ...

    def empty_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised NumPy array to read a micrograph into: pinned memory for a GPU."""
        ...

    def statistics(self, array: Array) -> Statistics | None:
        """Statistics of a result, where finding them here saves the host a pass; None on the host."""
        ...

    def rfft2(self, array: Array) -> Array:
        """Real 2-D transform, unnormalised; (ny, nx) float32 gives (ny, nx//2+1) complex64."""
        ...

    def irfft2(self, array: Array, shape: tuple[int, int]) -> Array:
        """Inverse of `rfft2` to the real-space `shape`; complex64 gives float32."""
        ...

    def rfft_rows(self, array: Array) -> Array:
        """Real transform of each row, in the calling thread alone; float32 gives complex64."""
        ...

    def irfft_rows(self, array: Array, n: int) -> Array:
        """Inverse of `rfft_rows` to `n` samples; missing high frequencies are taken as zero."""
        ...

    def fft_columns(self, array: Array) -> Array:
        """Complex transform of each column; the input may be used up."""
        ...

    def ifft_columns(self, array: Array) -> Array:
        """Inverse of `fft_columns`; the input may be used up."""
        ...

    def map_rows(self, work: Callable[[slice], Result], shape: tuple[int, ...], multiple: int = 1) -> list[Result]:
        """Call `work` with slices that cover all rows of an array of `shape`, and return the results in order.

        On the host the blocks fit the processor's cache, their lengths are multiples of `multiple` rows (but for the
        last), and as many threads share them as SciPy's transforms use. On a GPU one slice covers all rows.
        """
        ...

    def from_rows(
        self, work: Callable[[slice], Array], shape: tuple[int, int], dtype: DTypeLike, width: int = 0
    ) -> Array:
        """Return the array of this shape and type whose rows `work` computes, block by block as in `map_rows`.

        Blocks have the size that suits rows of `width` values, where those are more than `shape` says.
        """
        ...

    def grid(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """Return a grid or filter that the device keeps under `key`, made by `make` the first time; read-only."""
        ...

    def free_memory(self) -> int:
        """Bytes that this process could still take: of the GPU's memory, or of the host's."""
        ...

    def host_bytes(self, nbytes: int) -> int:
        """Bytes of host memory that an array of `nbytes` from `empty_host` takes."""
        ...

    def fft_work(self, shape: tuple[int, int]) -> int:
        """Bytes of work areas that the transforms of a micrograph (ny, nx) may keep on a GPU; 0 on the host."""
        ...
