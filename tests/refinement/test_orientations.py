"""Reading particle tables and matching their rows: which rows of two tables are the same particle."""

import numpy as np
import pytest

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.refinement.angles import compare
from n2n_deploy.refinement.orientations import euler_to_rotation

from .conftest import random_euler, write_star


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


def test_rotation_is_the_inverse_of_relions_matrix():
    for euler in random_euler(20):
        np.testing.assert_allclose(euler_to_rotation(euler).inv().as_matrix(), relion_matrix(*euler), atol=1e-12)


def test_tables_are_matched_by_image_name_and_unmatched_rows_counted(tmp_path):
    euler = random_euler(30, seed=7)
    names = [f"{i + 1:06d}@Extract/job007/mic.mrcs" for i in range(30)]
    order = np.random.default_rng(8).permutation(30)[:25]
    a = write_star(tmp_path / "a.star", euler, names)
    short = [f"{order[i] + 1}@Extract/job007/mic.mrcs" for i in range(25)]  # leading zeros do not matter
    b = write_star(tmp_path / "b.star", euler[order], short)
    distances = compare(a, b, "D7")
    assert distances.rotation_angle.max() < 1e-10
    assert (distances.matched_by, distances.unmatched) == ("image name", (5, 0))


def test_particles_extracted_twice_are_matched_by_coordinates(tmp_path):
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
def test_one_name_for_different_particles_of_two_projects_does_not_match(job, moved, tmp_path):
    """Refinements in two projects, as in the paper: equal image names are different particles, rows are reordered."""
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


def test_names_do_not_match_against_the_coordinates(tmp_path):
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
        DataError, match="share no particle .*image name, but 20 of 20 have other micrographs or coordinates"
    ):
        compare(*tables, "C1")


def test_ambiguous_image_file_names_do_not_match(tmp_path):
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
def test_equal_coordinates_are_distinguished_by_micrograph(stack, stem, tmp_path):
    """Every micrograph has particles at the same coordinates, so coordinates alone match any micrograph."""
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


def test_suffixes_that_distinguish_micrographs_are_kept(tmp_path):
    extra = {"rlnCoordinateX": [100, 100], "rlnCoordinateY": [100, 100]}
    tables = []
    for name, words in (("a", ("left", "right")), ("b", ("up", "down"))):
        micrographs = {"rlnMicrographName": [f"grid_{word}.mrc" for word in words]}
        images = [f"{i}@{name}.mrcs" for i in (1, 2)]
        tables.append(write_star(tmp_path / f"{name}.star", random_euler(2), images, micrographs | extra))
    with pytest.raises(DataError, match="share no particle"):
        compare(*tables, "C1")


def test_table_without_angles_is_refused(shared_data):
    table = shared_data / "star" / "relion31_particles_1k.star"
    with pytest.raises(DataError, match=r"relion31_particles_1k.star.*rlnAngle"):
        compare(table, table, "C1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no table of particles"),
        ("not a star file at all", "cannot be read as a STAR file"),
        ("data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n", "has no table of particles with rlnAngleRot"),
        ("data_particles\n\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAnglePsi\n1@a 1 2\n", "no column rlnAngleTilt"),
        ("data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1@a 1 nan 2\n", "row 1 is 'nan'"),
        (
            "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1@a 1 x 2\n",
            "rlnAngleTilt of row 1",
        ),
        ("data_\nloop_\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1 1 2\n", "its particles cannot be identified"),
        ("data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n", "no rows"),
        (
            "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\na 1 1 2\na 1 2 3\n",
            "a occurs 2 times",
        ),
    ],
)
def test_bad_table_is_refused_in_one_line_with_its_name(content, message, tmp_path):
    table = tmp_path / "bad.star"
    table.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        compare(table, table, "C1")
    assert "bad.star" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_table_and_tables_without_a_common_particle_are_refused(tmp_path):
    a = write_star(tmp_path / "a.star", random_euler(3))
    with pytest.raises(N2NError, match=r"gone.star: cannot be read"):
        compare(a, tmp_path / "gone.star", "C1")
    b = write_star(tmp_path / "b.star", random_euler(3), ["1@x.mrcs", "2@x.mrcs", "3@x.mrcs"])
    with pytest.raises(DataError, match="share no particle"):
        compare(a, b, "C1")
