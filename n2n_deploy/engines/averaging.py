"""Test-time averaging: a network's outputs for all eight flips and quarter turns of an image, turned back, averaged.

A network trained on flipped and turned patches is equivariant only roughly; its errors differ between the eight views,
its signal does not, so the average is nearer the truth. It costs eight passes.
"""

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tiling import run_tiled

VIEWS = 8


def run_averaged(session: Session, image: Array, halo: int, tile: tuple[int, int]) -> Array:
    """Pass the eight views of an image through a network and average; arguments and errors are `run_tiled`'s.

    Returns:
        (h, w) float32.
    """
    xp = device_of(image).xp
    total: Array = xp.zeros_like(image)
    for turns in (0, 2, 1, 3):  # those of one shape in a row: some engines compile anew for another
        for mirrored in (False, True):
            view = xp.rot90(image[:, ::-1] if mirrored else image, turns)
            windows = tile if turns % 2 == 0 else (tile[1], tile[0])
            denoised = xp.rot90(run_tiled(session, xp.ascontiguousarray(view), halo, windows), -turns)
            total += denoised[:, ::-1] if mirrored else denoised
    total /= VIEWS
    return total
