"""Make the package's data files from their sources: `python -m n2n_deploy.data.make MICROGRAPH MODELS OUT`.

MICROGRAPH is `fei-extended.mrc` of mrcfile's test data, MODELS a folder of PDB files (`3j9i.pdb`, the others packed:
`1bxn.pdb.xz`), OUT the folder to write to.
"""

import lzma
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import gemmi
import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from n2n_deploy.data import ATOMS, STRIPS
from n2n_deploy.data.structures import ENTRIES, FILE

GREY_LEVELS_PER_ELECTRON = 104.0

BIOLOGICAL = frozenset(("C", "N", "O", "S", "P"))
"""Elements kept: what else the crystals contain (platinum, sodium, chlorine) is not there in ice."""


def electrons(grey: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert grey levels to whole electrons per pixel, rounded at random so that the mean is kept."""
    expected = grey / GREY_LEVELS_PER_ELECTRON
    dither = np.random.default_rng(0).random(grey.shape)
    return (np.floor(expected) + (dither < expected % 1)).astype(np.uint16)


def write_strips(counts: NDArray[np.uint16], folder: Path) -> None:
    """Write the counts in strips of rows, low and high bytes in separate planes.

    The counts are noise with an entropy of 8.2 MB. LZMA without contexts comes within 3 % of it; the high bytes,
    nearly all zero, cost nothing in their own plane.
    """
    packing = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 4096, "mode": lzma.MODE_NORMAL, "nice_len": 273}
        | {"mf": lzma.MF_BT4, "lc": 0, "lp": 0, "pb": 0}
    ]
    edges = np.linspace(0, len(counts), len(STRIPS) + 1, dtype=int)
    for name, (first, last) in zip(STRIPS, pairwise(edges), strict=True):
        planes = np.stack([counts[first:last] & 255, counts[first:last] >> 8]).astype(np.uint8)
        with lzma.open(folder / name, "wb", format=lzma.FORMAT_XZ, filters=packing) as stream:
            np.lib.format.write_array(stream, planes)


def write_atoms(model: gemmi.Model, folder: Path) -> None:
    """Write elements and positions in hundredths of Å, centred and rotated into the standard setting of D7."""
    atoms = [(site.atom.element, site.atom.pos.tolist()) for site in model.all()]
    positions = np.array([position for _, position in atoms])
    masses = np.array([element.weight for element, _ in atoms])
    centred = positions - np.average(positions, axis=0, weights=masses)
    turned = d7_setting(model).apply(centred)
    np.savez_compressed(
        folder / ATOMS,
        elements=np.array([element.atomic_number for element, _ in atoms], np.uint8),
        positions=np.round(turned * 100).astype(np.int16),
    )


def assembly(structure: gemmi.Structure) -> gemmi.Model:
    """Return the first biological assembly without water, ions and heavy-atom derivatives."""
    structure.remove_waters()
    structure.remove_hydrogens()
    if not structure.assemblies:
        return structure[0]
    first, rename = structure.assemblies[0], gemmi.HowToNameCopiedChain.Short
    return gemmi.make_assembly(first, structure[0], rename)


def write_structures(models: Path, folder: Path) -> None:
    """Write the assemblies of all entries: elements, and positions in tenths of Å about the centre of mass."""
    arrays: dict[str, Any] = {}
    for name, entry in ENTRIES.items():
        with lzma.open(models / f"{entry}.pdb.xz", "rt") as stream:
            model = assembly(gemmi.read_pdb_string(stream.read()))
        atoms = [site.atom for site in model.all() if site.atom.element.name in BIOLOGICAL]
        positions = np.array([atom.pos.tolist() for atom in atoms])
        positions -= np.average(positions, axis=0, weights=[atom.element.weight for atom in atoms])
        arrays[f"{name}/elements"] = np.array([atom.element.atomic_number for atom in atoms], np.uint8)
        arrays[f"{name}/positions"] = np.round(positions * 10).astype(np.int16)
    np.savez_compressed(folder / FILE, **arrays)


def d7_setting(model: gemmi.Model) -> Rotation:
    """Find the rotation that puts the sevenfold axis on z and a twofold axis on x.

    The axes are those of the rotations that superpose one chain on its thirteen copies.
    """
    traces = [chain.get_polymer().extract_sequence() for chain in model]
    copies = [chain for chain, trace in zip(model, traces, strict=True) if trace == traces[0]]
    first = _alpha_carbons(copies[0])
    vectors = np.array([_superposition(first, _alpha_carbons(chain)).as_rotvec() for chain in copies[1:]])
    angles = np.linalg.norm(vectors, axis=1)
    half_turn = angles > np.radians(175)
    z = np.linalg.svd(vectors[~half_turn] / angles[~half_turn, None])[2][0]
    x = vectors[half_turn][0]
    x -= z * (z @ x)
    x /= np.linalg.norm(x)
    return Rotation.from_matrix(np.array([x, np.cross(z, x), z]))


def _alpha_carbons(chain: gemmi.Chain) -> NDArray[np.float64]:
    return np.array([residue["CA"][0].pos.tolist() for residue in chain])


def _superposition(moving: NDArray[np.float64], fixed: NDArray[np.float64]) -> Rotation:
    rotation, _ = Rotation.align_vectors(fixed - fixed.mean(axis=0), moving - moving.mean(axis=0))
    return rotation


def main() -> None:
    """Read the two sources and write all data files."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    micrograph, models, folder = map(Path, sys.argv[1:])
    with mrcfile.open(micrograph, permissive=True) as mrc:
        write_strips(electrons(mrc.data), folder)
    write_atoms(gemmi.read_structure(str(models / "3j9i.pdb"))[0], folder)
    write_structures(models, folder)


if __name__ == "__main__":
    main()
