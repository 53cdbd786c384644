"""The CUDA kernels: their arithmetic, compiled for the CPU, against NumPy; their compilation for GPUs."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from standin_kernels import compile_kernels

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging import cuda_ops
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import grid_spacing, network_shape, nyquist, partial_irfft2, partial_rfft2
from n2n_deploy.imaging.gradient import subtract_ramp
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import EDGE, Merge, restore
from n2n_deploy.imaging.steps import CropStep, PadStep

Array = NDArray[Any]

SETTINGS = [
    # shape, pixel size, max_resolution: cropped, from odd sizes too, and grown to the next multiple of 8.
    ((256, 320), 1.0, 4.5),
    ((257, 311), 0.83, 4.5),
    ((301, 262), 1.1, 3.0),
    ((129, 131), 1.5, 2.0),
    ((132, 260), 1.5, 3.0),
    ((256, 256), 1.0, 2.0),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_kernels(cuda_ops.source(), tmp_path_factory.mktemp("kernels"))


def call(function: Callable[..., Any], *arrays: Array | None) -> None:
    function(*(None if array is None else ctypes.c_void_p(array.ctypes.data) for array in arrays))


def micrograph(shape: tuple[int, int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(40.0, 6.0, shape).astype(np.float32)


OPTICS = Optics(1.0, 300.0, 2.7, 0.1)
CTF = CTFParameters(21000.0, 18500.0, 37.0, 15.0)


def optics(pixel_size: float) -> Optics:
    return Optics(pixel_size, OPTICS.voltage, OPTICS.spherical_aberration, OPTICS.amplitude_contrast)


def test_structures_have_the_layout_of_c(library: ctypes.CDLL) -> None:
    sizes = np.zeros(2, dtype=np.int64)
    call(library.sizes, sizes)
    crop = cuda_ops.crop_structure(CropStep((64, 64), 1.0, (32, 32), Recipe(), None), 33)
    pad = cuda_ops.pad_structure(PadStep((32, 32), (64, 64), (1.0, 1.0), 1.0, (0.1, 0.2)), 33)
    assert sizes.tolist() == [crop.itemsize, pad.itemsize]


@pytest.mark.parametrize(("shape", "pixel_size", "resolution"), SETTINGS)
@pytest.mark.parametrize("flip", [True, False])
def test_crop_is_preprocessing(
    library: ctypes.CDLL, shape: tuple[int, int], pixel_size: float, resolution: float, flip: bool
) -> None:
    recipe = Recipe(max_resolution=resolution, phase_flip=flip)
    image, how = micrograph(shape), optics(pixel_size)
    prepared = preprocess(image, how, CTF, recipe, keep_spectrum=True)
    size = network_shape(shape, pixel_size, resolution)
    assert prepared.spectrum is not None
    for columns in {shape[1] // 2 + 1, min(shape[1], size[1]) // 2 + 1}:
        raw = partial_rfft2(image, prepared.mean, columns)
        out = np.empty((size[0], size[1] // 2 + 1), dtype=np.complex64)
        given = (how, CTF) if flip else None
        with subtract_ramp(raw, shape, pixel_size, recipe.highpass):
            step = CropStep(shape, pixel_size, size, recipe, given)
            call(library.crop, raw, out, cuda_ops.crop_structure(step, columns))
        small = irfft2(out, size)
        assert np.abs(small / prepared.std - prepared.image).max() < 3e-5


def test_sign_is_that_of_the_ctf_far_from_focus(library: ctypes.CDLL) -> None:
    shape, pixel_size = (256, 255), 0.8
    recipe = Recipe(max_resolution=1.6, highpass=1e6)
    far = CTFParameters(52000.0, 47000.0, -71.0, 90.0)
    raw = np.ones((256, 128), dtype=np.complex64)
    size = (256, 256)
    signed, unsigned = (np.empty((256, 129), dtype=np.complex64) for _ in range(2))
    for out, given in ((signed, (optics(pixel_size), far)), (unsigned, None)):
        call(library.crop, raw, out, cuda_ops.crop_structure(CropStep(shape, pixel_size, size, recipe, given), 128))
    truth = ctf(size, (256 * 0.8 / 256, 255 * 0.8 / 256), optics(pixel_size), far)
    clear = (np.abs(truth) > 1e-4) & (np.abs(unsigned) > 0)
    assert clear.mean() > 0.9
    assert np.array_equal(np.sign((signed / np.where(clear, unsigned, 1)).real)[clear], np.sign(truth)[clear])


@pytest.mark.parametrize(("shape", "pixel_size", "resolution"), SETTINGS)
@pytest.mark.parametrize(
    ("flip_back", "lowpass", "merging", "coarser"),
    [
        (False, None, False, None),
        (True, 9.0, False, None),
        (False, None, True, None),
        (True, None, True, None),
        (False, 7.0, True, None),
        (False, None, False, 1.3),
        (True, 9.0, False, 3.2),
    ],
)
def test_pad_is_restoring(
    library: ctypes.CDLL,
    shape: tuple[int, int],
    pixel_size: float,
    resolution: float,
    flip_back: bool,
    lowpass: float | None,
    merging: bool,
    coarser: float | None,
) -> None:
    how, recipe = optics(pixel_size), Recipe(max_resolution=resolution)
    prepared = preprocess(micrograph(shape), how, CTF, recipe, keep_spectrum=True)
    denoised = 0.5 * prepared.image + 0.2 * micrograph(prepared.image.shape, 1) / 6.0
    end = min(nyquist(prepared.spacing), 0.5 / pixel_size)
    merge = Merge(1.3 / end, 0.3 / end) if merging else None
    wanted = coarser and coarser * pixel_size
    expected = restore(denoised, prepared, merge=merge, flip_back=flip_back, lowpass=lowpass, output_pixel_size=wanted)
    found = restored(library, denoised, prepared, merge, flip_back, lowpass, expected.shape)
    assert np.abs(found - expected).max() < 3e-5 * expected.std() + 2e-6 * prepared.mean


def restored(
    library: ctypes.CDLL,
    denoised: Array,
    prepared: Prepared,
    merge: Merge | None,
    flip_back: bool,
    lowpass: float | None,
    shape: tuple[int, int],
) -> Array:
    size = denoised.shape
    end = min(nyquist(prepared.spacing), 0.5 / prepared.pixel_size)
    assert prepared.ctf is not None
    flip = (prepared.optics, prepared.ctf)
    columns = (shape[1] if merge else min(shape[1], size[1])) // 2 + 1
    step = PadStep(
        (size[0], size[1]),
        shape,
        grid_spacing(prepared.shape, prepared.pixel_size, shape),
        prepared.std,
        merge.band if merge else ((1.0 - EDGE) * end, end),
        denoised_flip=flip if flip_back else None,
        noisy_flip=None if flip_back else flip,
        extra_edge=((1 - EDGE / 2) / lowpass, (1 + EDGE / 2) / lowpass) if lowpass else None,
    )
    parameters = cuda_ops.pad_structure(step, columns)
    spectrum, noisy = rfft2(denoised.astype(np.float32)), prepared.spectrum if merge else None
    out, sums = np.empty((shape[0], columns), dtype=np.complex64), np.zeros(5)
    if noisy is not None:
        call(library.band, spectrum, noisy, sums, parameters)
    call(library.pad, spectrum, noisy, sums, out, parameters)
    image: Array = partial_irfft2(out, shape, prepared.mean)
    return image


def test_compiler_messages_point_into_the_source_file() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (extra dev)")
    lines = (Path(cuda_ops.__file__).parent / "kernels.cu").read_text().splitlines()
    broken = next(number for number, line in enumerate(lines, 1) if line.startswith("struct Stored"))
    source = cuda_ops.source().replace("struct Stored", "structure Stored")
    program = nvrtc.nvrtcCreateProgram(source.encode(), b"", 0, [], [])[1]
    assert nvrtc.nvrtcCompileProgram(program, 1, [b"--std=c++17"])[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS
    log = bytearray(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, log)
    assert f"n2n_deploy/imaging/kernels.cu({broken})" in log.decode()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
def test_kernels_compile_for_gpus(architecture: str) -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (extra dev)")

    def checked(result: tuple[Any, ...]) -> Any:
        assert result[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, result
        return result[1] if len(result) > 1 else None

    program = checked(nvrtc.nvrtcCreateProgram(cuda_ops.source().encode(), b"kernels.cu", 0, [], []))
    options = [option.encode() for option in (*cuda_ops.OPTIONS, f"--gpu-architecture={architecture}")]
    status = nvrtc.nvrtcCompileProgram(program, len(options), options)[0]
    # bytearray: NVRTC writes into it, and Python shares bytes of length 1 (an empty log's) with the whole process.
    log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    cubin = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
    checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    assert cubin.startswith(b"\x7fELF")
    for kernel in (b"crop_kernel", b"band_kernel", b"pad_kernel"):
        assert kernel in cubin
