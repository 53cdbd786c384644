"""Atomic models of thirteen proteins and complexes, of 2 000 to 52 000 atoms."""

from functools import cache
from importlib.resources import files

import numpy as np

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import Atoms, proteasome

FILE = "structures.npz"

PROTEASOME = "proteasome"

ENTRIES = {
    "rubisco": "1bxn",
    "clpb": "1qvr",
    "hsp70": "1s3x",
    "cand1-cul1-roc1": "1u6g",
    "hsp90": "2cg9",
    "p97": "3cf3",
    "hsp110-hsp70": "3d2f",
    "ssb1": "3gl1",
    "get3": "3h84",
    "esterase": "3qm1",
    "ribosome-30s": "4v4r_30S",
    "cav1.1": "5gjv",
}
"""The structures beside the proteasome, and the PDB entries they come from."""

NAMES = (PROTEASOME, *ENTRIES)


def structures() -> dict[str, Atoms]:
    """Read all structures by name: biological assemblies without water and ions, about their centres of mass."""
    return {name: structure(name) for name in NAMES}


def pdb_code(name: str) -> str:
    """Return the PDB code of a structure."""
    return "3J9I" if name == PROTEASOME else ENTRIES[name][:4].upper()


@cache
def structure(name: str) -> Atoms:
    """Read one structure; its arrays are shared and must not be changed.

    Raises:
        UsageError: there is no structure of this name.
    """
    if name == PROTEASOME:
        return proteasome()
    if name not in ENTRIES:
        raise UsageError(f"there is no structure named {name!r}; use one of {', '.join(NAMES)}")
    with files(__package__).joinpath(FILE).open("rb") as stream, np.load(stream) as archive:
        positions = archive[f"{name}/positions"].astype(np.float32) / np.float32(10)
        return Atoms(archive[f"{name}/elements"], positions)
