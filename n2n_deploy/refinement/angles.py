"""Angular distance between two sets of particle orientations (section S2.5 of the paper's supplement)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from n2n_deploy.files.atomic import make_writable_folder
from n2n_deploy.files.data_files import write_csv, write_json
from n2n_deploy.refinement.orientations import euler_to_rotation, match, read_orientations
from n2n_deploy.refinement.symmetry import point_group
from n2n_deploy.report.figures import BLUE, RED, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AngularDistances:
    """Angular distances between two refinements of the same particles.

    Attributes:
        particles: (n,) names.
        rotation_angle: (n,) degrees, angle of the rotation between the two orientations, 2·arccos|⟨q1, q2⟩|.
        symmetry: point group; orientations related by it are equivalent.
        matched_by: what the particles were matched by.
        unmatched: number of particles that are only in the first table, and only in the second.
    """

    particles: list[str]
    rotation_angle: Floats
    symmetry: str
    matched_by: str
    unmatched: tuple[int, int]

    @property
    def quaternion_angle(self) -> Floats:
        """(n,) degrees, arccos|⟨q1, q2⟩| as section S2.5 prints it: half the rotation angle."""
        return self.rotation_angle / 2

    def summary(self) -> dict[str, Any]:
        """Return the content of angles.json; angles are rotation angles unless named otherwise."""
        angle = self.rotation_angle
        levels = (5, 25, 50, 75, 95)
        return {
            "symmetry": self.symmetry,
            "matched": len(self.particles),
            "matched_by": self.matched_by,
            "unmatched": {"first": self.unmatched[0], "second": self.unmatched[1]},
            "angle": "rotation angle, 2 arccos|<q1,q2>|, smallest over the symmetry mates, in degrees",
            "median_deg": float(np.median(angle)),
            "mean_deg": float(np.mean(angle)),
            "max_deg": float(np.max(angle)),
            "percentiles_deg": {str(p): float(v) for p, v in zip(levels, np.percentile(angle, levels), strict=True)},
            "fraction_below": {f"{limit}_deg": float(np.mean(angle < limit)) for limit in (1, 2, 5, 10)},
            "quaternion_angle": {
                "angle": "arccos|<q1,q2>|, as S2.5 of Palovcak et al. 2020 prints it: half the rotation angle",
                "median_deg": float(np.median(self.quaternion_angle)),
                "mean_deg": float(np.mean(self.quaternion_angle)),
            },
        }

    def write(self, folder: Path) -> None:
        """Write angles.csv (one row per particle), angles.json (the summary) and angles.png (a histogram)."""
        make_writable_folder(folder)
        rows = zip(self.particles, self.rotation_angle, self.quaternion_angle, strict=True)
        write_csv(folder / "angles.csv", ["particle", "rotation_angle_deg", "quaternion_angle_deg"], rows)
        write_json(folder / "angles.json", self.summary())
        with figure(folder / "angles.png") as (axes,):
            self._draw(axes)

    def _draw(self, axes: "Axes") -> None:
        median = float(np.median(self.rotation_angle))
        top = max(float(np.percentile(self.rotation_angle, 99.5)) * 1.05, 1e-3)
        axes.hist(np.minimum(self.rotation_angle, top), bins=60, range=(0, top), color=BLUE, alpha=0.85)
        axes.axvline(median, color=RED, label=f"median {median:.2f}°")
        axes.set_xlim(0, top)
        axes.set_xlabel(f"rotation angle between orientations, {self.symmetry} (°)")
        axes.set_ylabel(f"particles (of {len(self.particles)})")
        axes.legend()


def rotation_distance(a: Floats, b: Floats, symmetry: str) -> Floats:
    """Return the smallest rotation angle between orientations and their symmetry mates, (n,) in degrees.

    The angle is 2·arccos|⟨q1, q2⟩|, the smallest over q1 and all mates of q2. It is computed from the vector
    and scalar parts of the quotient as 2·atan2(|v|, |w|), which is accurate at small angles too.

    Args:
        a: (n, 3) degrees, rlnAngleRot, rlnAngleTilt and rlnAnglePsi of one refinement.
        b: (n, 3) degrees, of the same particles in another.
        symmetry: point group of the map; see `point_group`.

    Raises:
        UsageError: the point group is unknown.
    """
    group = point_group(symmetry)
    first, second = euler_to_rotation(a), euler_to_rotation(b)
    units = Rotation.from_quat(np.eye(4))
    closest = np.full(len(a), -1.0)
    nearest_mate = np.zeros(len(a), dtype=np.intp)
    for index, operation in enumerate(group):
        mates = second.as_quat() @ (operation * units).as_quat()
        inner = np.abs((first.as_quat() * mates).sum(axis=1))
        nearest_mate[inner > closest] = index
        closest = np.maximum(closest, inner)
    degrees: Floats = np.degrees((first.inv() * (group[nearest_mate] * second)).magnitude())
    return degrees


def compare(a: Path, b: Path, symmetry: str) -> AngularDistances:
    """Compare the orientations of the particles that two RELION particle tables share.

    Raises:
        DataError: a table cannot be used, or the tables share no particle.
        UsageError: the point group is unknown.
    """
    point_group(symmetry)
    first, second = read_orientations(a), read_orientations(b)
    rows, others, matched_by = match(first, second)
    names = first.names[matched_by]
    return AngularDistances(
        particles=[names[row] for row in rows],
        rotation_angle=rotation_distance(first.euler[rows], second.euler[others], symmetry),
        symmetry=symmetry.strip().upper(),
        matched_by=matched_by,
        unmatched=(len(first.euler) - len(rows), len(second.euler) - len(others)),
    )
