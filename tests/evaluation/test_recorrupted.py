"""Evaluation without halves against the known signal, and against halves of the same micrographs."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from function_session import FunctionSession, Image
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from star_builder import star_table
from typer.testing import CliRunner

from n2n_deploy.cli.app import build
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.evaluation.evaluation_run import run_evaluation
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies

SHAPE, PIXEL = (1024, 1152), 1.0
OPTICS = Optics(PIXEL, 300.0, 2.7, 0.1)
CTFS = (CTFParameters(12000.0, 11500.0, 30.0), CTFParameters(17000.0, 16800.0, 80.0))


def blur(image: Image) -> Image:
    return gaussian_filter(image, 1.0)


def noise(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of variance 81: white, of an integrating detector, or of frames shifted by linear interpolation."""
    white = np.fft.rfft2(rng.standard_normal(SHAPE))
    y, x = np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1])[None, :]
    power = np.ones(white.shape)
    if kind == "coloured":
        power = 0.5 + np.exp(-(y**2 + x**2) / 0.35**2)
    if kind == "interpolated":
        power = (1 - 0.9 * np.sin(np.pi * y) ** 2) * (1 - 0.4 * np.sin(np.pi * x) ** 2)
    return np.asarray(9 * np.fft.irfft2(white * np.sqrt(power), s=SHAPE))


def write(folder: Path, kind: str) -> Path:
    """Micrographs without halves, whose expected electrons are in truth/: structure in ice, 600 electrons a pixel."""
    (folder / "truth").mkdir(parents=True)
    for number, parameters in enumerate(CTFS):
        rng = np.random.default_rng(number)
        s = frequencies(SHAPE, (PIXEL, PIXEL)).astype(np.float64)
        transfer = ctf(SHAPE, (PIXEL, PIXEL), OPTICS, parameters) * np.exp(-60 * s**2)
        structure = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * transfer, s=SHAPE)
        for path, image in (
            (folder / "truth" / f"m{number}.mrc", 600 + 12 * structure),
            (folder / f"m{number}.mrc", 600 + 12 * structure + noise(kind, rng)),
        ):
            with mrcfile.new(path) as mrc:
                mrc.set_data(image.astype(np.float32))
                mrc.voxel_size = PIXEL
    columns = {
        "rlnMicrographName": [f"m{number}.mrc" for number in range(len(CTFS))],
        "rlnDefocusU": [each.defocus_u for each in CTFS],
        "rlnDefocusV": [each.defocus_v for each in CTFS],
        "rlnDefocusAngle": [each.defocus_angle for each in CTFS],
    }
    (folder / "micrographs.star").write_text(star_table(columns, pixel_size=PIXEL))
    return folder / "micrographs.star"


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("white"), "white")


@pytest.mark.parametrize("kind", ["white", "coloured", "interpolated"])
def test_estimates_are_within_5_percent_of_the_truth(kind: str, model: Path, tmp_path: Path) -> None:
    star = write(tmp_path / "data", kind)
    run = run_evaluation(star, model, tmp_path / "out", truth=star.parent / "truth", session=FunctionSession(blur))
    assert not run.result.failures
    assert run.whole is not None
    assert run.whole.truth is not None
    for name in ("var_signal", "var_noise_noisy", "var_noise_denoised", "snr_noisy", "snr_denoised"):
        assert run.whole.image[name].value == pytest.approx(getattr(run.whole.truth, name), rel=0.05), name
    found, true = run.whole.image["recovered_signal_fraction"].value, run.whole.truth.recovered_signal_fraction
    assert found == pytest.approx(true, abs=0.05)
    assert run.whole.truth.snr_noisy < 0.4
    # The noise of 25 000 components in the band is known to 0.6 %, which is 2 % of a signal at an SNR of 0.3.
    assert [flag for done in run.result.done for flag in done.flags] == []


def test_numbers_report_and_terminal_say_that_there_are_no_halves(white: Path, model: Path, tmp_path: Path) -> None:
    told: list[str] = []
    run = run_evaluation(white, model, tmp_path / "out", session=FunctionSession(blur), say=told.append)
    (note,) = told
    assert "measuring recorrupted pairs" in note
    assert run.document["remarks"] == ["2 of 2 micrographs in the set: without halves, measured on recorrupted pairs"]
    assert [each["pairs"] for each in run.document["each"]] == ["recorrupted"] * 2
    assert "noise (white) estimated from the exposure" in run.document["each"][0]["notes"][0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "without halves" in page
    assert "recorrupted" in (tmp_path / "out" / "evaluation.csv").read_text()
    again = run_evaluation(white, model, tmp_path / "again", session=FunctionSession(blur), pairs="recorrupted")
    assert again.document["set"] == run.document["set"]


def test_the_choice_is_the_commands_too(white: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["evaluate", str(white), str(model), "-o", str(out), "--json", "--pairs"]
    result = CliRunner().invoke(build(), [*asked, "recorrupted"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["run"]["options"]["pairs"] == "recorrupted"
    with pytest.raises(UsageError, match=r"invalid --pairs 'both'; choose auto, halves, recorrupted"):
        run_evaluation(white, model, out, pairs="both")
    with pytest.raises(DataError):
        run_evaluation(white, model, out, pairs="halves")


def test_a_wrong_estimate_is_flagged(white: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of 0.8 times the true power leaves a fifth of it in both of a pair, which counts as signal."""
    from n2n_deploy.evaluation import recorrupted_exposure as made
    from n2n_deploy.statistics.noise_models import NoiseModel

    for level, kind in ((0.8, "noise counts as signal"), (1.2, "signal counts as noise")):
        monkeypatch.setattr(made, "estimate_noise", lambda *_, level=level, **__: NoiseModel("white", 81 * level))
        out = tmp_path / str(level)
        run = run_evaluation(white, model, out, session=FunctionSession(blur))
        flags = [flag for flag in run.result.done[0].flags if flag.kind == "noise model"]
        assert flags
        assert all(kind in flag.text for flag in flags)
        assert run.document["remarks"][-1] == "2 of 2 micrographs in the set: the estimate of their noise is off"
