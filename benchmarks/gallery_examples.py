"""The examples of `benchmarks.gallery`: a micrograph and a model each, most of them chosen to go wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.quality_methods import Case, Image, make_case
from n2n_deploy import data
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.ctf import ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import read_micrographs

PIXEL_SIZE = 2.0
"""Å per pixel of the simulated micrographs."""

REAL_PART = np.s_[:160, 300:510]
"""The part of the real micrograph that is shown, in network pixels."""


@dataclass(frozen=True, eq=False)
class Example:
    """A micrograph, the model to denoise it with, and how to show it.

    Attributes:
        name: of the picture's file.
        model: a key of `benchmarks.gallery.MODELS`.
        case: the halves, their sum and, for simulations, the truth.
        window: the example whose output sets the grey scale; by default its own.
        part: what is shown.
    """

    name: str
    model: str
    case: Case
    window: str = ""
    part: Any = np.s_[:, :]


def simulated_examples(folder: Path, recipes: Mapping[str, Recipe]) -> list[Example]:
    """Examples made from the first micrograph that was simulated in `folder`."""
    table = read_micrographs(folder / "micrographs.star", NamingOptions(project=folder), need_halves=True)
    micrograph = table.micrographs[0]
    assert micrograph.even is not None
    assert micrograph.odd is not None
    assert micrograph.ctf is not None
    paths = {"even": micrograph.even, "odd": micrograph.odd, "whole": micrograph.path}
    raw = {name: np.asarray(read_mrc(path).data, np.float32) for name, path in paths.items()}
    truth = np.asarray(read_mrc(folder / "truth" / "mic_0001.mrc").data, np.float32)
    usual = recipes["proteasome"]
    good = make_case(micrograph, raw, usual, truth)
    inverted = {name: 2 * image.mean() - image for name, image in raw.items()}
    binned = replace(micrograph, optics=replace(micrograph.optics, pixel_size=PIXEL_SIZE / 2))
    far = micrograph.ctf.defocus_u + 15000.0
    misfit = replace(micrograph, ctf=replace(micrograph.ctf, defocus_u=far, defocus_v=far))
    carbon = with_carbon(truth, micrograph)
    empty = np.full_like(truth, truth.mean())
    return [
        Example("simulated", "proteasome", good),
        Example("few-steps", "proteasome, few steps", good, "simulated"),
        Example("resolution", "proteasome, 40 Å", make_case(micrograph, raw, recipes["proteasome, 40 Å"], truth)),
        Example("inverted", "proteasome", make_case(micrograph, inverted, usual, 2 * truth.mean() - truth)),
        Example("pixel-size", "proteasome", make_case(binned, raw, usual, truth)),
        Example("defocus", "proteasome", make_case(misfit, raw, usual, truth)),
        Example("carbon", "proteasome", make_case(micrograph, exposed(carbon), usual, carbon)),
        Example("noise", "proteasome", make_case(micrograph, exposed(empty), usual), "simulated"),
    ]


def real_examples(even: NDArray[Any], odd: NDArray[Any], recipes: Mapping[str, Recipe]) -> list[Example]:
    """The real micrograph with its own model and with that of another specimen."""
    micrograph = Micrograph("real", Path("real.mrc"), data.OPTICS, data.CTF)
    raw = {"even": even, "odd": odd, "whole": even + odd}
    case = make_case(micrograph, {name: image.astype(np.float32) for name, image in raw.items()}, recipes["real"])
    return [
        Example("real", "real", case, part=REAL_PART),
        Example("other-specimen", "proteasome, 8 Å", case, "real", part=REAL_PART),
    ]


def with_carbon(electrons: Image, micrograph: Micrograph) -> Image:
    """The expected electrons with a carbon film's edge across the frame.

    The film scatters a fifth of the electrons out of the beam, and its amorphous structure, white noise in the
    exit wave's phase, is imaged with the CTF.
    """
    ny, nx = electrons.shape
    y, x = np.mgrid[:ny, :nx].astype(np.float32)
    distance = np.hypot(y - 1.6 * ny, x - 1.2 * nx) - 1.15 * ny
    film = expit(-distance / 3)
    spacing = (PIXEL_SIZE, PIXEL_SIZE)
    transfer = ctf(electrons.shape, spacing, micrograph.optics, micrograph.ctf)
    transfer = transfer * np.exp(-120.0 / 4 * frequencies(electrons.shape, spacing) ** 2)
    phase = np.random.default_rng(3).standard_normal(electrons.shape).astype(np.float32)
    structure = irfft2(rfft2(phase) * transfer, electrons.shape)
    expected: Image = (electrons * (1 - 0.2 * film) * (1 + 0.15 * film * structure)).astype(np.float32)
    return np.maximum(expected, 0)


def exposed(electrons: Image) -> dict[str, Image]:
    """Two independent Poisson images of half the dose each, and their sum."""
    rng = np.random.default_rng(4)
    even, odd = (rng.poisson(electrons / 2).astype(np.float32) for _ in range(2))
    return {"even": even, "odd": odd, "whole": even + odd}
