"""The two steps in Fourier space, carried out where the spectrum lives: by NumPy on the host, by kernels on a GPU."""

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.device.cuda import CudaDevice
from n2n_deploy.imaging import cuda_ops, host_ops
from n2n_deploy.imaging.steps import CropStep, PadStep


def crop(raw: Array, step: CropStep) -> Array:
    """Fourier-crop, band-pass and phase-flip a raw spectrum.

    Args:
        raw: (ny, columns) complex64: at least the columns that both grids have in common.
        step: how.

    Returns:
        (height, width//2+1) complex64.

    Raises:
        DataError: the CTF's voltage, spherical aberration or amplitude contrast is unknown.
    """
    device = device_of(raw)
    return cuda_ops.crop(device, raw, step) if isinstance(device, CudaDevice) else host_ops.crop(raw, step)


def pad(denoised: Array, step: PadStep, noisy: Array | None = None) -> Array:
    """Zero-pad, low-pass, phase-flip and merge.

    Args:
        denoised: (height, width//2+1) complex64, the spectrum of the network's output; it is used up.
        step: how.
        noisy: (ny, nx//2+1) complex64, the raw image's spectrum, to merge with.

    Returns:
        (ny, columns) complex64, for `partial_irfft2`; columns is nx//2+1 with `noisy`, min(nx, width)//2+1 without.

    Raises:
        DataError: the CTF's voltage, spherical aberration or amplitude contrast is unknown.
    """
    device = device_of(denoised)
    if isinstance(device, CudaDevice):
        return cuda_ops.pad(device, denoised, step, noisy)
    return host_ops.pad(denoised, step, noisy)
