"""Simulated data sets (dataset, exposure): electrons, the CTF in the truth, tables that RELION reads, seeds."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import typer
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from n2n_deploy.cli.simulate import simulate_command
from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import proteasome
from n2n_deploy.simulate import NAMES, simulate
from n2n_deploy.simulate.detectors import DETECTORS


def image(star: Path, name: str) -> np.ndarray:
    return mrcfile.read(star.parent / name).astype(np.float64)


@pytest.fixture(scope="module")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One micrograph at the default settings, only smaller, and not square."""
    return simulate(tmp_path_factory.mktemp("typical"), 1, (700, 801), seed=3)


def test_empty_ice_is_poisson_and_its_halves_are_independent(tmp_path: Path) -> None:
    star = simulate(tmp_path, 1, (400, 500), 1.5, particles=0, dose=20, ice_gradient=0, thickness=0)
    even, odd = (image(star, f"micrographs/mic_0001_{half}.mrc") for half in ("EVN", "ODD"))
    np.testing.assert_allclose(image(star, "truth/mic_0001.mrc"), 20 * 1.5**2, rtol=1e-6)
    for half in (even, odd):
        assert half.mean() == pytest.approx(22.5, abs=5 * np.sqrt(22.5 / half.size))
        assert half.var() == pytest.approx(22.5, rel=5 * np.sqrt(2 / half.size))
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 5 / np.sqrt(even.size)


def test_halves_share_only_the_truth(typical: Path) -> None:
    even, odd, both = (image(typical, f"micrographs/mic_0001_{name}.mrc") for name in ("EVN", "ODD", "DW"))
    truth = image(typical, "truth/mic_0001.mrc")
    assert np.array_equal(even + odd, both)
    scatter = 20 / np.sqrt(truth.size)
    assert np.cov(even.ravel(), odd.ravel())[0, 1] == pytest.approx(truth.var() / 4, abs=5 * scatter)
    np.testing.assert_allclose(np.corrcoef((even - truth / 2).ravel(), truth.ravel())[0, 1], 0, atol=5e-3 * 2)
    assert both.mean() == pytest.approx(truth.mean(), abs=5 * np.sqrt(40 / truth.size))


def test_signal_to_noise_ratio_is_realistic(typical: Path) -> None:
    """0.01 to 0.1 per pixel of 1 Å at 40 electrons per Å², without the slow gradient of the ice."""
    truth = image(typical, "truth/mic_0001.mrc")
    fast = truth - gaussian_filter(truth, 60, mode="nearest")
    assert 0.01 < fast.var() / truth.mean() < 0.1


def test_protein_is_dark_at_the_tables_positions(typical: Path) -> None:
    truth = image(typical, "truth/mic_0001.mrc")
    truth -= gaussian_filter(truth, 100, mode="nearest", truncate=2)
    rows = _rows(typical.parent / "truth" / "particles.star")
    centres = np.array([[float(row[2]), float(row[1])] for row in rows])
    y, x = np.indices(truth.shape)
    near = np.any([np.hypot(y - cy, x - cx) < 50 for cy, cx in centres], axis=0)
    far = np.all([np.hypot(y - cy, x - cx) > 120 for cy, cx in centres], axis=0)
    assert truth[near].mean() < truth[far].mean() - 0.5


def test_thon_rings_vanish_where_the_ctf_does(tmp_path: Path) -> None:
    defocus, phase_shift = 12000.0, 40.0
    star = simulate(
        tmp_path,
        1,
        (512, 512),
        1.2,
        particles=7,
        defocus=(defocus, defocus),
        astigmatism=0,
        phase_shift=phase_shift,
        b_factor=0,
        ice_gradient=0,
    )
    truth = image(star, "truth/mic_0001.mrc")
    window = np.outer(np.hanning(512), np.hanning(512))
    power = np.abs(np.fft.fft2((truth - truth.mean()) * window)) ** 2
    s = np.hypot(np.fft.fftfreq(512, 1.2)[:, None], np.fft.fftfreq(512, 1.2))
    # γ = n π solved for s², with λ = 0.0196875 Å at 300 kV (Reimer & Kohl) and Cs = 2.7 mm.
    wavelength, cs = 0.0196875, 2.7e7
    linear, square = np.pi * wavelength * defocus, np.pi / 2 * cs * wavelength**3

    def radius(gamma: float) -> float:
        constant = np.radians(phase_shift) + np.arcsin(0.1) - gamma
        return np.sqrt((linear - np.sqrt(linear**2 + 4 * square * constant)) / (2 * square))

    def mean_power(gamma: float) -> float:
        return power[np.abs(s - radius(gamma)) < 0.001].mean()

    for n in range(1, 7):
        extrema = (mean_power((n - 0.5) * np.pi) + mean_power((n + 0.5) * np.pi)) / 2
        assert mean_power(n * np.pi) < 0.1 * extrema


def test_relion_reads_tables_and_images(relion: Callable[..., str], typical: Path, tmp_path: Path) -> None:
    folder = typical.parent
    relion("relion_star_handler", "--i", "micrographs.star", "--o", tmp_path / "copy.star", cwd=folder)
    assert "micrographs/mic_0001_EVN.mrc" in (tmp_path / "copy.star").read_text()
    relion("relion_star_handler", "--i", "truth/particles.star", "--o", tmp_path / "copy.star", cwd=folder)
    assert len(_rows(tmp_path / "copy.star")) == len(_rows(folder / "truth" / "particles.star")) > 0
    printed = relion("relion_image_handler", "--i", "micrographs/mic_0001_DW.mrc", "--stats", cwd=folder)
    assert "(x,y,z,n)= 801 x 700 x 1 x 1" in printed
    assert float(printed.split("avg=")[1].split()[0]) == pytest.approx(
        image(typical, "micrographs/mic_0001_DW.mrc").mean(), rel=1e-4
    )
    assert mrcfile.validate(folder / "micrographs" / "mic_0001_DW.mrc")


def test_relion_reconstructs_the_model_from_the_truth(relion: Callable[..., str], tmp_path: Path) -> None:
    """Extraction at the table's positions and reconstruction with its angles and CTF recover the protein."""
    pixel_size, box = 3.0, 80
    simulate(tmp_path, 4, (512, 512), pixel_size, particles=16, defocus=(8000, 16000), ice_gradient=0)
    for truth in (tmp_path / "truth").glob("*.mrc"):
        shutil.copy(truth, tmp_path / "micrographs" / f"{truth.stem}_DW.mrc")
    tables = ("--i", "micrographs.star", "--reextract_data_star", "truth/particles.star")
    extraction = ("--part_dir", "extracted/", "--part_star", "extracted.star", "--extract", "--extract_size", box)
    look = ("--norm", "--bg_radius", 36, "--invert_contrast")
    relion("relion_preprocess", *tables, *extraction, *look, cwd=tmp_path)
    reconstruction = ("--i", "extracted.star", "--o", "map.mrc", "--ctf", "--sym", "D7", "--maxres", 10, "--pad", 1)
    relion("relion_reconstruct", *reconstruction, cwd=tmp_path)
    found = mrcfile.read(tmp_path / "map.mrc")
    x, y, z = (proteasome().positions / pixel_size + box // 2).T
    edges = [np.arange(box + 1) - 0.5] * 3
    density = np.histogramdd((z, y, x), edges)[0]
    expected, found = (gaussian_filter(volume, 1.5) for volume in (density, found.astype(np.float64)))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.9


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_micrographs(tmp_path: Path) -> None:
    def digests(folder: str, number: int, seed: int) -> dict[str, str]:
        simulate(tmp_path / folder, number, (200, 200), 2.0, seed, particles=2)
        files = (tmp_path / folder).rglob("*_0001*.mrc")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests("a", 1, 5)
    assert len(first) == 4
    assert digests("b", 2, 5) == first
    assert set(digests("c", 1, 6).values()).isdisjoint(first.values())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"micrographs": 0}, "number of micrographs is 0"),
        ({"size": (2048, 30)}, "size is"),
        ({"pixel_size": 0}, "pixel size is 0"),
        ({"pixel_size": float("nan")}, "pixel size is nan"),
        ({"dose": -1}, "dose is -1"),
        ({"defocus": (2e4, 1e4)}, "defocus range"),
        ({"particles": -1}, "number of particles is -1"),
        ({"thickness": -5}, "thickness is -5"),
        ({"contrast": -1}, "contrast is -1"),
        ({"detector": "film"}, "detector is film, expected one of perfect, K2, K3"),
        ({"specimen": "virus"}, "no structure named 'virus'"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(options: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=named):
        simulate(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_command_takes_width_by_height_and_saves_its_configuration(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(simulate_command)
    small = ["--micrographs", "1", "--particles", "1", "--pixel-size", "3"]
    done = CliRunner().invoke(app, [str(tmp_path), "--size", "90x70", *small])
    assert done.exit_code == 0, done.output
    assert image(tmp_path / "micrographs.star", "micrographs/mic_0001_ODD.mrc").shape == (70, 90)
    assert 'size = "90x70"' in (tmp_path / "config.toml").read_text()
    wrong = CliRunner().invoke(app, [str(tmp_path), "--size", "90", *small])
    assert isinstance(wrong.exception, UsageError)


def test_help_lists_every_structure_and_detector() -> None:
    app = typer.Typer()
    app.command()(simulate_command)
    options = {option.name: option.help for option in typer.main.get_command(app).params}
    assert re.split(r", | or ", options["specimen"].rstrip(".")) == list(NAMES)
    assert re.split(r", | or ", options["detector"].rstrip(".").split(": ")[1]) == list(DETECTORS)


def test_any_structure_and_detector_can_be_simulated(tmp_path: Path) -> None:
    """A better detector keeps more of the same specimen's signal, and the files say what it is."""
    variances = []
    for detector in ("K2", "K3"):
        options = {"specimen": "get3", "detector": detector, "particles": 2, "ice_gradient": 0}
        star = simulate(tmp_path / detector, 1, (200, 200), 2.0, 3, **options)
        variances.append(image(star, "truth/mic_0001.mrc").var())
    assert variances[0] < variances[1]
    with mrcfile.open(tmp_path / "K2" / "micrographs" / "mic_0001_DW.mrc") as mrc:
        assert any("get3 (PDB 3H84)" in label for label in mrc.get_labels())


def _rows(star: Path) -> list[list[str]]:
    """Rows of a STAR file that belong to a micrograph."""
    return [line.split() for line in star.read_text().splitlines() if "micrographs/" in line]
