"""Angular distances against matrices written out by hand, SciPy and RELION's own symmetry expansion."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import DataError, N2NError, UsageError
from n2n_deploy.refinement.angles import compare, rotation_distance
from n2n_deploy.refinement.orientations import euler_to_rotation
from n2n_deploy.refinement.symmetry import point_group

GROUPS = {"C1": 1, "C2": 2, "C7": 7, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24}
GROUPS |= dict.fromkeys(("I", "I1", "I2", "I3", "I4"), 60)


def relion_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Euler_angles2matrix of Xmipp and RELION (Heymann et al. 2005), written out: reference to view."""
    ca, cb, cg = np.cos(np.radians([rot, tilt, psi]))
    sa, sb, sg = np.sin(np.radians([rot, tilt, psi]))
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def random_euler(n: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(n, rng=np.random.default_rng(seed)).as_euler("ZYZ", degrees=True)


def write_star(path: Path, euler: np.ndarray, names: list[str] | None = None, extra: dict | None = None) -> Path:
    columns = {"rlnImageName": names or [f"{i + 1:06d}@Extract/job007/mic.mrcs" for i in range(len(euler))]}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), euler.T, strict=True))
    columns |= dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), np.zeros(len(euler)))
    columns |= {"rlnOpticsGroup": np.ones(len(euler), int)} | (extra or {})
    rows = "\n".join(" ".join(map(str, row)) for row in zip(*columns.values(), strict=True))
    path.write_text(
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n"
        "_rlnVoltage #3\n_rlnSphericalAberration #4\n_rlnImagePixelSize #5\n_rlnImageSize #6\n"
        "_rlnImageDimensionality #7\n"
        "1 og1 300 2.7 1.0 64 2\n\n# version 30001\n\ndata_particles\n\nloop_\n"
        + "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(columns))
        + rows
        + "\n"
    )
    return path


def test_the_rotation_is_the_inverse_of_relions_matrix():
    for euler in random_euler(20):
        np.testing.assert_allclose(euler_to_rotation(euler).inv().as_matrix(), relion_matrix(*euler), atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_has_its_order_and_is_closed(name):
    group = point_group(name)
    assert len(group) == GROUPS[name]
    for operation in group:
        for product in group * operation:
            assert (group.inv() * product).magnitude().min() < 1e-7


@pytest.mark.parametrize("name", ["C7", "D1", "D2", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_relions_symmetry_expansion_has_distance_zero(name, relion, tmp_path):
    euler = random_euler(5, seed=3)
    table = write_star(tmp_path / "particles.star", euler)
    relion("relion_particle_symmetry_expand", "--i", table, "--o", tmp_path / "expanded.star", "--sym", name)
    rows = [line.split() for line in (tmp_path / "expanded.star").read_text().splitlines() if "@" in line]
    expanded = np.array([row[1:4] for row in rows], dtype=float)
    assert len(expanded) == GROUPS[name] * len(euler)
    originals = np.repeat(euler, GROUPS[name], axis=0)
    # RELION writes six decimals.
    assert rotation_distance(originals, expanded, name).max() < 1e-4
    assert rotation_distance(originals, expanded, "C1").max() > 20


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, 12.0, 20.0])
@pytest.mark.parametrize("name", ["C1", "D7", "T", "I3"])
def test_a_known_turn_of_a_symmetry_mate_is_measured(angle, name):
    euler = random_euler(50, seed=1)
    axes = np.random.default_rng(4).standard_normal((50, 3))
    turn = Rotation.from_rotvec(np.radians(angle) * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    mate = point_group(name)[-1]
    turned = (mate * euler_to_rotation(euler) * turn).as_euler("ZYZ", degrees=True)
    measured = rotation_distance(euler, turned, name)
    # Another mate may be closer only beyond half the smallest angle between mates (51.4° in D7, 72° in I).
    np.testing.assert_allclose(measured, angle, rtol=1e-6, atol=2e-12)


def test_turns_by_hand():
    # Turning the camera about its own axis changes psi alone; turning the view over the pole changes tilt.
    a = np.array([[10.0, 40.0, 5.0], [10.0, 40.0, 5.0], [10.0, 0.0, 5.0]])
    b = np.array([[10.0, 40.0, 35.0], [10.0, 95.0, 5.0], [5.0, 0.0, 10.0]])
    np.testing.assert_allclose(rotation_distance(a, b, "C1"), [30.0, 55.0, 0.0], atol=1e-12)


def test_unrelated_orientations_have_the_distribution_of_random_rotations():
    # Haar measure on SO(3): the density of the rotation angle is (1 - cos θ)/π, so its mean is π/2 + 2/π.
    angles = rotation_distance(random_euler(20000, seed=5), random_euler(20000, seed=6), "C1")
    assert np.radians(angles).mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=4 * 0.65 / np.sqrt(20000))


def test_tables_are_matched_by_name_and_the_rest_is_counted(tmp_path):
    euler = random_euler(30, seed=7)
    names = [f"{i + 1:06d}@Extract/job007/mic.mrcs" for i in range(30)]
    order = np.random.default_rng(8).permutation(30)[:25]
    a = write_star(tmp_path / "a.star", euler, names)
    short = [f"{order[i] + 1}@Extract/job007/mic.mrcs" for i in range(25)]  # the number's width does not matter
    b = write_star(tmp_path / "b.star", euler[order], short)
    distances = compare(a, b, "D7")
    assert distances.rotation_angle.max() < 1e-10
    assert (distances.matched_by, distances.unmatched) == ("image name", (5, 0))


def test_particles_extracted_twice_are_matched_by_their_coordinates(tmp_path):
    euler = random_euler(10, seed=9)
    extra = {
        "rlnMicrographName": ["run/mic1.mrc"] * 10,
        "rlnCoordinateX": np.arange(10.0),
        "rlnCoordinateY": [7] * 10,
    }
    a = write_star(tmp_path / "a.star", euler, extra=extra)
    extra = {key: list(value)[::-1] for key, value in extra.items()} | {"rlnMicrographName": ["denoised/mic1.mrc"] * 10}
    names = [f"{i + 1}@Extract/job020/mic.mrcs" for i in range(10)]
    distances = compare(a, write_star(tmp_path / "b.star", euler[::-1], names, extra), "C1")
    assert distances.matched_by == "micrograph and coordinates"
    assert distances.rotation_angle.max() < 1e-10


@pytest.mark.parametrize("job", ["job007", "job020"])
@pytest.mark.parametrize("moved", [0.0, 0.3, 4.0])
def test_names_that_two_projects_gave_to_different_particles_do_not_match(job, moved, tmp_path):
    """Two refinements in two projects, as in the paper: rows in another order, images of one name are two particles."""
    rng = np.random.default_rng(11)
    euler, order = random_euler(40, seed=12), rng.permutation(40)
    places = rng.uniform(200, 3900, (40, 2))
    tables = []
    for name, folder, rows, xy in (
        ("a", "job007", np.arange(40), places),
        ("b", job, order, places + moved * np.array([0.6, -0.8])),
    ):
        extra = {
            "rlnMicrographName": [f"{name}/mic.mrc"] * 40,
            "rlnCoordinateX": xy[rows, 0],
            "rlnCoordinateY": xy[rows, 1],
        }
        names = [f"{i + 1:06d}@Extract/{folder}/mic.mrcs" for i in range(40)]
        tables.append(write_star(tmp_path / f"{name}.star", euler[rows], names, extra))
    distances = compare(*tables, "C1")
    assert distances.matched_by == "micrograph and coordinates"
    assert (len(distances.particles), distances.unmatched) == (40, (0, 0))
    assert distances.rotation_angle.max() < 1e-10


def test_names_alone_are_not_believed_against_coordinates(tmp_path):
    rng = np.random.default_rng(13)
    tables = [
        write_star(
            tmp_path / f"{name}.star",
            random_euler(20, seed=14),
            extra={
                "rlnMicrographName": [f"{name}.mrc"] * 20,
                "rlnCoordinateX": rng.uniform(200, 3900, 20),
                "rlnCoordinateY": rng.uniform(200, 3900, 20),
            },
        )
        for name in ("a", "b")
    ]
    with pytest.raises(
        DataError, match="share no particle .*image name, but 20 of 20 have another micrograph or other coordinates"
    ):
        compare(*tables, "C1")


def test_image_file_names_that_two_particles_share_match_none(tmp_path):
    euler = random_euler(20, seed=15)
    names = [f"{i % 10 + 1}@Extract/job007/{'first' if i < 10 else 'second'}/mic.mrcs" for i in range(20)]
    a = write_star(tmp_path / "a.star", euler, names)
    distances = compare(a, write_star(tmp_path / "b.star", euler[:10], names[:10]), "C1")
    assert (distances.matched_by, distances.unmatched) == ("image name", (10, 0))
    assert distances.rotation_angle.max() < 1e-10
    moved = write_star(tmp_path / "c.star", euler[:10], [name.replace("job007", "job020") for name in names[:10]])
    with pytest.raises(DataError, match="image file name, but two particles have the same"):
        compare(a, moved, "C1")


@pytest.mark.parametrize("stem", ["mic_{}", "mic_{}_DW", "mic_{}_denoised"])
@pytest.mark.parametrize("stack", ["particles", "again"])
def test_places_on_a_grid_are_told_apart_by_their_micrographs(stack, stem, tmp_path):
    """Every micrograph has particles at the same places, so that coordinates alone would agree with any name."""
    euler, number = random_euler(48, seed=16), np.repeat(np.arange(3), 16)
    x, y = (np.tile(axis.ravel(), 3) for axis in np.meshgrid(np.arange(4) * 500.0, np.arange(4) * 500.0))
    tables = []
    for path, name, images, rows in (
        (tmp_path / "a.star", "mic_{}.tiff", "particles", np.arange(48)),
        (tmp_path / "b.star", f"{stem}.mrc", stack, np.roll(np.arange(48), 16)),
    ):
        extra = {
            "rlnMicrographName": [name.format(n) for n in number[rows]],
            "rlnCoordinateX": x[rows],
            "rlnCoordinateY": y[rows],
        }
        tables.append(write_star(path, euler[rows], [f"{i + 1}@{images}.mrcs" for i in range(48)], extra))
    distances = compare(*tables, "C1")
    assert (distances.matched_by, distances.unmatched) == ("micrograph and coordinates", (0, 0))
    assert distances.rotation_angle.max() < 1e-10


def test_words_that_alone_tell_micrographs_apart_stay_in_their_names(tmp_path):
    extra = {"rlnCoordinateX": [100, 100], "rlnCoordinateY": [100, 100]}
    tables = []
    for name, words in (("a", ("left", "right")), ("b", ("up", "down"))):
        micrographs = {"rlnMicrographName": [f"grid_{word}.mrc" for word in words]}
        images = [f"{i}@{name}.mrcs" for i in (1, 2)]
        tables.append(write_star(tmp_path / f"{name}.star", random_euler(2), images, micrographs | extra))
    with pytest.raises(DataError, match="share no particle"):
        compare(*tables, "C1")


def test_the_summary_agrees_with_the_angles_and_the_papers_angle_is_half(tmp_path):
    a = random_euler(200, seed=10)
    b = a + np.array([0, 0, 3.0])
    tables = [write_star(tmp_path / "a.star", a), write_star(tmp_path / "b.star", b)]
    distances = compare(*tables, "d7")
    distances.write(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "angles.json").read_text())
    assert summary["median_deg"] == pytest.approx(3.0)
    assert summary["quaternion_angle"]["median_deg"] == pytest.approx(1.5)
    assert summary["fraction_below"] == {"1_deg": 0, "2_deg": 0, "5_deg": 1, "10_deg": 1}
    assert summary["matched"] == 200
    # arccos of the inner product, taken literally
    q1, q2 = euler_to_rotation(a).as_quat(), euler_to_rotation(b).as_quat()
    literal = np.degrees(np.arccos(np.abs((q1 * q2).sum(axis=1))))
    np.testing.assert_allclose(distances.quaternion_angle, literal, atol=1e-9)
    lines = (tmp_path / "out" / "angles.csv").read_text().splitlines()
    assert len(lines) == 201
    assert (tmp_path / "out" / "angles.png").stat().st_size > 5000


def test_a_table_without_angles_is_refused_with_what_it_lacks(shared_data):
    table = shared_data / "star" / "relion31_particles_1k.star"
    with pytest.raises(DataError, match=r"relion31_particles_1k.star.*rlnAngle"):
        compare(table, table, "C1")


@pytest.mark.parametrize("name", ["D", "C0", "Ih", "I5", "C2v", "TD", "", "D7x", "icosahedral"])
def test_unknown_symmetry_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match="symmetry") as caught:
        point_group(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no table in it has particles"),
        ("not a star file at all", "cannot be read as a STAR file"),
        ("data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n", "no table in it has particles with rlnAngleRot"),
        ("data_particles\n\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAnglePsi\n1@a 1 2\n", "no column rlnAngleTilt"),
        ("data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1@a 1 nan 2\n", "row 1 is 'nan'"),
        (
            "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1@a 1 x 2\n",
            "rlnAngleTilt of row 1",
        ),
        ("data_\nloop_\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1 1 2\n", "nothing tells its particles apart"),
        ("data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n", "no rows"),
        (
            "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\na 1 1 2\na 1 2 3\n",
            "a occurs 2 times",
        ),
    ],
)
def test_a_bad_table_is_refused_in_one_line_with_its_name(content, message, tmp_path):
    table = tmp_path / "bad.star"
    table.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        compare(table, table, "C1")
    assert "bad.star" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_tables_without_a_common_particle_are_refused(tmp_path):
    a = write_star(tmp_path / "a.star", random_euler(3))
    with pytest.raises(N2NError, match=r"gone.star: cannot be read"):
        compare(a, tmp_path / "gone.star", "C1")
    b = write_star(tmp_path / "b.star", random_euler(3), ["1@x.mrcs", "2@x.mrcs", "3@x.mrcs"])
    with pytest.raises(DataError, match="share no particle"):
        compare(a, b, "C1")
