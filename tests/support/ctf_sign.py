"""The sign of a CTF as `flip_phases` sees it: what it makes of ones."""

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging.ctf import CTFParameters, Optics, flip_phases


def ctf_sign(
    shape: tuple[int, int],
    spacing: tuple[float, float],
    optics: Optics,
    parameters: CTFParameters,
    device: Device = HOST,
) -> Array:
    """Return the sign of `ctf`, ±1 with sign(0) = +1, as (ny, nx//2+1) float32; same arguments and errors."""
    signs: Array = device.xp.ones((shape[0], shape[1] // 2 + 1), dtype=device.xp.float32)
    flip_phases(signs, shape, spacing, optics, parameters)
    return signs
