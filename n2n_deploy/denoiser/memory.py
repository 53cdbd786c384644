"""What memory denoising takes, term by term, and what may be used. No other module of the runtime adds bytes up.

What only others know they tell: a session what its network needs for one window, a device what its transforms and its
pinned memory take.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import BLOCK
from n2n_deploy.device.memory import host_budget, process_memory
from n2n_deploy.engines.session import Session
from n2n_deploy.imaging.fourier import common_columns, network_shape
from n2n_deploy.imaging.pixel_statistics import TILE

_FLOAT32, _COMPLEX64, _FLOAT64, _COMPLEX128 = 4, 8, 8, 16
_SHARE_OF_GPU = 0.9


@dataclass(frozen=True, slots=True)
class MemoryRequirement:
    """What a lane takes for the micrographs of one size, beside the network.

    Attributes:
        shape: (ny, nx) of the micrographs.
        pixel_size: Å.
        count: how many there are.
        size: (height, width) of the network's image.
        pixels: bytes on the host: the micrograph as read, and from a GPU its result and what the network saw and made.
        work: bytes of Fourier work, where the network runs.
    """

    shape: tuple[int, int]
    pixel_size: float
    count: int
    size: tuple[int, int]
    pixels: int
    work: int


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What may be used.

    Attributes:
        host: bytes of host memory for this process, all together.
        process: bytes of them that it holds before the first micrograph.
        device: bytes free on each GPU; None on the host.
        gpus: how many GPUs this process feeds, with as many lanes each.
    """

    host: int
    process: int
    device: int | None = None
    gpus: int = 1

    def at_start(self, gpus: int) -> Self:
        """Return the budget of a run that starts now: the process may hold more than when it was first asked."""
        return replace(self, process=process_memory(), gpus=gpus)


def memory_budget(device: Device, memory: int | None = None) -> MemoryBudget:
    """Return what may be used now.

    Args:
        device: where the network runs; of a GPU's free memory a share is used.
        memory: bytes of host memory for the whole process; by default a share of what is free.
    """
    on_gpu = int(_SHARE_OF_GPU * device.free_memory()) if device.is_gpu else None
    return MemoryBudget(host_budget(memory), process_memory(), on_gpu)


def memory_requirement(
    device: Device,
    recipe: Recipe,
    shape: tuple[int, int],
    pixel_size: float,
    count: int = 1,
    *,
    merge: bool = False,
    halves: bool = False,
    views: bool = False,
    inverted: bool = False,
) -> MemoryRequirement:
    """Return what a lane takes for micrographs of one size.

    Args:
        device: where the network runs.
        recipe: how micrographs become network input.
        shape: (ny, nx) of the micrographs.
        pixel_size: Å.
        count: how many there are.
        merge: the noisy spectrum is kept and merged.
        halves: the even and odd halves are denoised in place of their sum.
        views: the network's outputs for turned and flipped views are averaged.
        inverted: the network sees a copy with inverted contrast.
    """
    size = network_shape(shape, pixel_size, recipe.max_resolution)
    work = _preprocess_and_restore(device, shape, size, merge)
    micrograph, network_image = _FLOAT32 * math.prod(shape), _FLOAT32 * math.prod(size)
    pixels = as_read = device.host_bytes(micrograph)
    if device.is_gpu:
        result, shown = as_read, 2 * network_image
        pixels += result + shown
        # The image as read, the spectra of its rows, which are transformed at once and whole, and cuFFT's work areas.
        row_spectra = _COMPLEX64 * shape[0] * (shape[1] // 2 + 1)
        # What repair_pixels() sums over bands of rows, beside its float64 copy, which is less than the spectra.
        band_sums = _FLOAT64 * math.prod(shape) // TILE
        work += micrograph + row_spectra + band_sums + device.fft_work(shape)
    if halves:
        # The report measures the halves' network images, before and after: each in float64 as well, and centred.
        measured = 4 * math.prod(size)
        pixels += 2 * as_read + measured * (_FLOAT32 + 2 * _FLOAT64)
        work += micrograph + 4 * network_image
    if inverted:
        work += network_image
    if views:
        view, output, total = 3 * (network_image,)
        work += view + output + total
    return MemoryRequirement(shape, pixel_size, count, size, pixels, work)


def _preprocess_and_restore(device: Device, shape: tuple[int, int], size: tuple[int, int], merge: bool) -> int:
    """Peak bytes that `preprocess` and then `restore` need for one micrograph beyond its pixels as read.

    Counts the float32 copy of an image of another type, the spectra, the network's input and output, the filters that
    the device keeps, and the result; not what the network needs inside.
    """
    micrograph, network_image = _FLOAT32 * math.prod(shape), _FLOAT32 * math.prod(size)
    spectrum = _COMPLEX64 * shape[0] * (shape[1] // 2 + 1 if merge else common_columns(shape, size))
    # In preprocess() a copy of the pixels and the spectrum; in restore() the spectrum and the result.
    total = micrograph + spectrum + 4 * network_image
    if merge:  # in restore(), beside the kept spectrum
        merged_copy = spectrum
        total += merged_copy
    if not device.is_gpu:  # whose kernels compute filters on the way
        kept_filters = 3 * network_image
        row_blocks = _COMPLEX128 * BLOCK * device.workers  # rows at work, in several forms
        total += kept_filters + row_blocks
    return total


def network_memory(size: tuple[int, int], tile: tuple[int, int], session: Session) -> int:
    """Bytes that an image of this size, its result, one window and the network take together."""
    image = result = math.prod(size)
    window = 0 if tile == size else 2 * math.prod(tile)  # a copy of what it sees, and its output
    return _FLOAT32 * (image + result + window) + session.memory(tile)
