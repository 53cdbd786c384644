"""Data that ship with the package: a general model, a real micrograph's electron counts, the 20S proteasome's atoms.

Sources and licences are in `README.md` beside this file; `make.py` makes the files.
"""

import lzma
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.imaging.ctf import CTFParameters, Optics

STRIPS = ("micrograph-1.xz", "micrograph-2.xz", "micrograph-3.xz")
ATOMS = "proteasome.npz"

GENERAL_MODEL = Path(__file__).with_name("general.n2n")
"""The bundle that is used where no model is named."""

MICROGRAPH_PIXEL_SIZE = 0.85378
"""Å per pixel of the real micrograph."""

OPTICS = Optics(MICROGRAPH_PIXEL_SIZE, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)

CTF = CTFParameters(defocus_u=10500.0, defocus_v=10500.0)
"""A rough fit without astigmatism: good enough for demonstrations, not for science."""


@dataclass(frozen=True, slots=True)
class Atoms:
    """Heavy atoms of a molecule.

    Attributes:
        elements: (n,) atomic numbers, uint8.
        positions: (n, 3) x, y, z in Å, float32, about the centre of mass.
    """

    elements: NDArray[np.uint8]
    positions: NDArray[np.float32]


def micrograph_counts() -> NDArray[np.uint16]:
    """Read a real micrograph: electrons counted in each pixel, (3838, 3710), 34 on average."""
    rows = [_read_strip(name) for name in STRIPS]
    low, high = np.concatenate(rows, axis=1)
    counts: NDArray[np.uint16] = low + np.uint16(256) * high
    return counts


def thin(counts: NDArray[np.integer], seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Split electron counts at random into two images, (even, odd), each of half the dose.

    Binomial thinning of a Poisson image gives two *independent* Poisson images of the same signal, as noise2noise
    needs (S1, eqs. 4-6). The two add up to `counts`.
    """
    even = np.random.default_rng(seed).binomial(counts.astype(np.int64), 0.5)
    return even.astype(np.uint16), (counts - even).astype(np.uint16)


def proteasome() -> Atoms:
    """Read the 46 228 heavy atoms of the 20S proteasome (PDB 3J9I), to 0.01 Å.

    Symmetry D7 in RELION's and SciPy's setting: the sevenfold axis is z, one of the twofold axes is x.
    """
    with files(__name__).joinpath(ATOMS).open("rb") as stream, np.load(stream) as archive:
        return Atoms(archive["elements"], archive["positions"].astype(np.float32) / np.float32(100))


def _read_strip(name: str) -> NDArray[np.uint8]:
    """Read a strip of rows as (2, rows, nx): the low and the high bytes of the counts."""
    with files(__name__).joinpath(name).open("rb") as packed, lzma.open(packed) as stream:
        return np.lib.format.read_array(stream)
