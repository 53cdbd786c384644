"""Particle picking by `relion_autopick --LoG` on denoised micrographs, against the true positions."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import starfile
from scipy.spatial import cKDTree

from benchmarks.quality_methods import Case, Method
from n2n_deploy.imaging.restore import restore
from n2n_deploy.io.mrc import write_mrc
from n2n_deploy.io.star import MicrographTable

DIAMETERS = (110, 150)
"""Å; the proteasome's short and long axes."""

NEAR = 50.0
"""Å; largest distance between a pick and a particle's centre."""

THRESHOLDS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
"""Values of `--LoG_adjust_threshold`: users adjust it by eye, so each method is scored at its best value."""


@dataclass(frozen=True)
class Picks:
    """Picks compared with the true positions, at one threshold."""

    threshold: float
    picked: int
    found: int
    particles: int

    @property
    def precision(self) -> float:
        """Fraction of the picks that are particles."""
        return self.found / self.picked if self.picked else 0.0

    @property
    def recall(self) -> float:
        """Fraction of the particles that were picked."""
        return self.found / self.particles

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.found / (self.picked + self.particles)

    def as_dict(self) -> dict[str, Any]:
        """Counts and ratios."""
        return asdict(self) | {"precision": self.precision, "recall": self.recall, "f1": self.f1}


def available() -> bool:
    """Whether RELION is installed."""
    return shutil.which("relion_autopick") is not None


def write_denoised(folder: Path, table: MicrographTable, cases: Sequence[Case], method: Method) -> Path:
    """Write the denoised sums at full size, and a table of them, as `n2n-deploy denoise` would."""
    names = {}
    for case in cases:
        image = restore(method(case, "whole"), case.prepared["whole"])
        path = folder / case.micrograph.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, image, label="benchmark", pixel_size=case.micrograph.optics.pixel_size)
        names[case.micrograph.row] = table.name_of(path)
    table.write(folder / "denoised.star", names, phase_flipped=cases[0].prepared["whole"].recipe.phase_flip)
    return folder / "denoised.star"


def pick(star: Path, project: Path, pixel_size: float, truth: Mapping[str, np.ndarray], scratch: Path) -> list[Picks]:
    """Pick at every threshold.

    Args:
        star: table of micrographs, in the project folder or below.
        project: folder that the names in the table are relative to.
        pixel_size: Å.
        truth: (n, 2) x, y in pixels by the stem of the micrograph.
        scratch: folder for the picks, below the project.
    """
    results = []
    for threshold in THRESHOLDS:
        shutil.rmtree(scratch, ignore_errors=True)
        command = ["relion_autopick", "--i", star, "--odir", f"{scratch.relative_to(project)}/", "--pickname", "log"]
        command += ["--angpix", pixel_size, "--LoG", "--LoG_adjust_threshold", threshold]
        command += ["--LoG_diam_min", DIAMETERS[0], "--LoG_diam_max", DIAMETERS[1]]
        subprocess.run(list(map(str, command)), cwd=project, check=True, capture_output=True)
        results.append(_compare(threshold, scratch, truth, pixel_size))
    return results


def best(results: Sequence[Picks]) -> Picks:
    """The picks with the highest F1."""
    return max(results, key=lambda picks: picks.f1)


def true_positions(star: Path) -> dict[str, np.ndarray]:
    """Positions (x, y) in pixels from `truth/particles.star`, by the stem of the micrograph."""
    particles = starfile.read(star)["particles"]
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    return {Path(name).stem: group[columns].to_numpy() for name, group in particles.groupby("rlnMicrographName")}


def _compare(threshold: float, scratch: Path, truth: Mapping[str, np.ndarray], pixel_size: float) -> Picks:
    picked = found = 0
    for stem, positions in truth.items():
        for path in scratch.rglob(f"{stem}_log.star"):
            table = starfile.read(path, always_dict=True)
            columns = next(iter(table.values()))
            picks = np.column_stack([columns["rlnCoordinateX"], columns["rlnCoordinateY"]]).astype(float)
            if not len(picks):
                continue
            distance, nearest = cKDTree(positions).query(picks)
            picked += len(picks)
            found += len(set(nearest[distance * pixel_size < NEAR]))
    return Picks(threshold, picked, found, sum(map(len, truth.values())))
