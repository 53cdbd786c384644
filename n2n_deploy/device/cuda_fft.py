"""cuFFT through CuPy: transforms, and the memory that their plans may keep."""

from types import ModuleType
from typing import Any, cast

from n2n_deploy.device.array_types import Array

WORK = 8
"""Spectra of its largest micrograph that a thread's plans may keep as work areas: forward and inverse, each up to four
times the data where a length has large prime factors."""


def work_bytes(shape: tuple[int, int]) -> int:
    """Bytes of work areas that the transforms of a micrograph (ny, nx) may keep."""
    return WORK * 8 * shape[0] * (shape[1] // 2 + 1)


def transform(cupy: ModuleType, name: str, array: Array, **options: Any) -> Array:
    """Call a function of `cupyx.scipy.fft` on the current stream; its plan stays in the thread's cache."""
    import cupyx.scipy.fft

    function = getattr(cupyx.scipy.fft, name)
    while True:
        try:
            return cast(Array, function(array, **options))
        except RuntimeError as error:
            # CuPy refuses a plan whose work area exceeds the cache's bound in bytes, before it transforms anything;
            # lengths with a large prime factor have such plans.
            cache = cupy.fft.config.get_plan_cache()
            if "memsize" not in str(error) or cache.get_memsize() <= 0:
                raise
            cache.set_memsize(2 * cache.get_memsize())
