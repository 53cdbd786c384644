"""Evaluation of denoisers on simulated micrographs: bad halves, the set's numbers, and the files written."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from function_session import FunctionSession
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from n2n_deploy.cli.app import build
from n2n_deploy.core.errors import DataError, HostError, UsageError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.evaluation import evaluation_run
from n2n_deploy.evaluation.evaluation_run import EvaluationRun, run_evaluation
from n2n_deploy.evaluation.set_evaluation import evaluate_set
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.estimates import QUANTITIES

from .conftest import evaluated


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("one"), 3, (300, 320), 4.0, seed=2)


@pytest.fixture
def spoiled(one: Path, tmp_path: Path) -> Path:
    shutil.copytree(one.parent, tmp_path / "data")
    return tmp_path / "data" / "micrographs.star"


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "mic_0002_ODD.mrc").unlink(), "the odd half is missing"),
    "cut short": (lambda folder: (folder / "mic_0002_ODD.mrc").write_bytes(b"MRC"), "mic_0002_ODD.mrc"),
    "identical": (
        lambda folder: shutil.copy(folder / "mic_0002_EVN.mrc", folder / "mic_0002_ODD.mrc"),
        "identical to the odd half",
    ),
    "constant": (lambda folder: _write(folder / "mic_0002_ODD.mrc", np.ones((300, 320))), "no signal"),
    "of another shape": (
        lambda folder: _write(folder / "mic_0002_ODD.mrc", _read(folder, 2, "ODD")[:, :200]),
        "must have the same shape",
    ),
    "the sum": (
        lambda folder: (
            (folder / "mic_0002_ODD.mrc").unlink()
            or (folder / "mic_0002_ODD.mrc").symlink_to(folder / "mic_0002_DW.mrc")
        ),
        "the same image as the sum",
    ),
}


def _read(folder: Path, number: int, half: str) -> np.ndarray:
    return mrcfile.read(folder / f"mic_{number:04d}_{half}.mrc")


def _write(path: Path, image: np.ndarray, pixel_size: float = 4.0) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image.astype(np.float32))
        mrc.voxel_size = pixel_size


@pytest.mark.parametrize("kind", SPOILERS)
def test_bad_half_fails_only_its_micrograph(kind: str, spoiled: Path, model: Path, tmp_path: Path) -> None:
    spoil, words = SPOILERS[kind]
    spoil(spoiled.parent / "micrographs")
    run = run_evaluation(spoiled, model, tmp_path / "out", session=FunctionSession(np.copy))
    assert [done.micrograph.name for done in run.result.done] == [f"micrographs/mic_000{n}_DW.mrc" for n in (1, 3)]
    assert run.exit_code == 1
    (reason,) = run.result.failures.values()
    assert words in reason
    assert "mic_0002" in reason
    assert "\n" not in reason


def test_halves_of_different_micrographs_are_flagged(spoiled: Path, model: Path, tmp_path: Path) -> None:
    folder = spoiled.parent / "micrographs"
    shutil.copy(folder / "mic_0003_ODD.mrc", folder / "mic_0002_ODD.mrc")
    run = run_evaluation(spoiled, model, tmp_path / "out", session=FunctionSession(np.copy))
    assert [[flag.kind for flag in done.flags] for done in run.result.done] == [[], ["no signal in common"], []]
    # Included, they would halve the signal of the set and count as noise.
    assert run.result.excluded == run.document["excluded_from_the_set"] == ["micrographs/mic_0002_DW.mrc"]
    assert run.whole is not None
    (spoiled.parent / "micrographs" / "mic_0002_ODD.mrc").unlink()
    without = run_evaluation(spoiled, model, tmp_path / "without", session=FunctionSession(np.copy))
    assert without.whole is not None
    for name in ("var_signal", "snr_noisy", "recovered_signal_fraction"):
        assert run.whole.image[name] == without.whole.image[name]


def test_shared_noise_is_a_remark_on_the_set(model: Path, tmp_path: Path) -> None:
    star = simulate(tmp_path / "fine", 3, (300, 320), 1.0, seed=2, dose=200)  # resolves beyond the signal
    folder = star.parent / "micrographs"
    artefact = np.random.default_rng(5).normal(size=(300, 320))
    for half in ("EVN", "ODD"):
        image = _read(folder, 3, half).copy()
        _write(folder / f"mic_0003_{half}.mrc", image + image.std() * artefact, 1.0)
    shutil.copy(folder / "mic_0001_ODD.mrc", folder / "mic_0002_ODD.mrc")
    run = run_evaluation(star, model, tmp_path / "out", session=FunctionSession(np.copy))
    excluded, noisy = run.document["remarks"]
    assert excluded == "1 of 3 micrographs excluded from the set: no signal in common"
    assert noisy.startswith("1 of 2 micrographs in the set: shared noise counts as signal")
    assert len(run.document["each"]) == 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "excluded from the set" in page
    assert "shared noise counts as signal" in page


def test_a_table_without_halves_is_refused_where_they_are_asked_for(one: Path, model: Path, tmp_path: Path) -> None:
    star = tmp_path / "bare.star"
    lines = one.read_text().splitlines()
    star.write_text(
        "\n".join(line for line in lines if "NameEven" not in line and "NameOdd" not in line)
        .replace("_EVN.mrc", "_DW.mrc")
        .replace("_ODD.mrc", "_DW.mrc")
    )
    with pytest.raises(DataError, match="suffixes"):
        run_evaluation(star, model, tmp_path / "out", session=FunctionSession(np.copy), pairs="halves")


def test_missing_or_wrong_ground_truth_fails_the_micrograph(spoiled: Path, model: Path, tmp_path: Path) -> None:
    truth = spoiled.parent / "truth"
    (truth / "mic_0001.mrc").unlink()
    _write(truth / "mic_0003.mrc", np.random.default_rng(0).normal(size=(300, 320)))
    run = run_evaluation(spoiled, model, tmp_path / "out", truth=truth, session=FunctionSession(np.copy))
    assert "no noiseless image found at" in run.result.failures["micrographs/mic_0001_DW.mrc"]
    assert "not an image of electron counts" in run.result.failures["micrographs/mic_0003_DW.mrc"]
    assert len(run.result.done) == 1


@pytest.fixture(scope="module")
def written(one: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationRun, Path]:
    folder = tmp_path_factory.mktemp("written")
    blur = FunctionSession(lambda image: gaussian_filter(image, 1.0))
    return run_evaluation(one, model, folder, truth=one.parent / "truth", session=blur), folder


def test_files_hold_the_measured_numbers(written: tuple[EvaluationRun, Path]) -> None:
    run, folder = written
    assert run.whole is not None
    document = json.loads((folder / "evaluation.json").read_text())
    assert (document["micrographs"], document["failed"]) == (3, 0)
    for name in QUANTITIES:
        assert document["set"][name]["value"] == pytest.approx(run.whole.image[name].value, rel=1e-6)
        assert document["set"][name]["low"] < document["set"][name]["value"] < document["set"][name]["high"]
        assert document["set"][name]["true"] == pytest.approx(getattr(run.whole.truth, name), rel=1e-6)
        assert len(document["rings"][name]["value"]) == len(document["rings"]["frequency"])
    with (folder / "evaluation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["micrograph"] for row in rows] == [f"micrographs/mic_000{n}_DW.mrc" for n in (1, 2, 3)]
    # The set's variances are means over its micrographs.
    assert np.mean([float(row["var_signal"]) for row in rows]) == pytest.approx(document["set"]["var_signal"]["value"])
    with (folder / "rings.csv").open(newline="") as stream:
        rings = list(csv.DictReader(stream))
    assert [float(ring["frequency"]) for ring in rings] == pytest.approx(document["rings"]["frequency"][1:], rel=1e-6)
    assert float(rings[5]["true_var_signal"]) == pytest.approx(float(rings[5]["var_signal"]), rel=0.5)
    assert len(list((folder / "rings").glob("*.csv"))) == 3


def test_report_shows_every_micrograph_and_the_set(written: tuple[EvaluationRun, Path]) -> None:
    run, folder = written
    page = (folder / "report.html").read_text()
    rows = json.loads(page.split('id="rows">')[1].split("</script>")[0])
    assert [row["status"] for row in rows] == ["evaluated"] * 3
    snr = [run.result.done[0].image.m1m2 / (1 - run.result.done[0].image.m1m2)]
    assert rows[0]["snr_noisy"] == pytest.approx(snr[0], rel=1e-3)
    entry = json.loads(page.split('id="entry-0">')[1].split("</script>")[0])
    assert entry["ssnr"]["noisy"]
    assert entry["views"]["pictures"]["denoised"]
    assert page.count("data:image/png;base64,") == 2


def test_second_evaluation_replaces_the_files_of_the_first(spoiled: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_evaluation(spoiled, model, out, session=FunctionSession(np.copy))
    kept = {path.relative_to(out) for path in out.rglob("*") if path.is_file() and ".report" not in path.parts}
    assert len(kept) == 9
    for path in (spoiled.parent / "micrographs").glob("*_ODD.mrc"):
        path.unlink()
    with pytest.raises(DataError):
        run_evaluation(tmp_path / "gone.star", model, out, session=FunctionSession(np.copy))
    assert all((out / path).is_file() for path in kept)  # a run that fails early keeps the earlier files
    run_evaluation(spoiled, model, out, session=FunctionSession(np.copy))
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and ".report" not in path.parts}
    assert left == {"evaluation.json", "evaluation.csv", "report.html"}


def test_second_evaluation_removes_rings_of_micrographs_no_longer_in_the_table(
    one: Path, model: Path, tmp_path: Path
) -> None:
    out, first = tmp_path / "out", _first_row(one)
    run_evaluation(one, model, out, session=FunctionSession(np.copy))
    (out / "rings" / "mine.csv").write_text("somebody else's")
    run_evaluation(first, model, out, session=FunctionSession(np.copy))
    assert {path.name for path in (out / "rings").iterdir()} == {"00001_mic_0001_DW.csv", "mine.csv"}


def _first_row(star: Path) -> Path:
    """The same table with only its first micrograph, in the same folder."""
    path = star.with_name("first.star")
    lines = star.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "mic_0002" not in line and "mic_0003" not in line))
    return path


@pytest.mark.parametrize("name", ["denoised.star", "summary.json"])
def test_output_folder_of_a_batch_is_refused(name: str, one: Path, model: Path, tmp_path: Path) -> None:
    batch = {name: "of the batch", "report.html": "of the batch", "config.toml": "of the batch"}
    for each, text in batch.items():
        (tmp_path / each).write_text(text)
    with pytest.raises(UsageError, match=rf"holds denoised micrographs \({name}\)"):
        run_evaluation(one, model, tmp_path, session=FunctionSession(np.copy))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == batch


def test_too_little_memory_is_one_error_for_the_run(one: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="memory"):
        run_evaluation(one, model, tmp_path / "out", compute=ComputeOptions(device="cpu", memory=10**6))


def test_missing_libraries_skip_the_report_only(
    one: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_run, "missing_libraries", lambda: ["jinja2"])
    run = run_evaluation(one, model, tmp_path / "out", session=FunctionSession(np.copy))
    assert "jinja2 not installed" in str(run.report)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"evaluation.json", "evaluation.csv", "rings.csv", "rings"}


def test_test_time_averaging_improves_an_asymmetric_network(one: Path, model: Path, tmp_path: Path) -> None:
    """A network that shifts the image loses signal that averaging over views keeps."""
    shift = FunctionSession(lambda image: gaussian_filter(np.roll(image, 2, axis=1), 1.0))
    fractions = []
    for tta in (False, True):
        run = run_evaluation(one, model, tmp_path / f"{tta}", tta=tta, session=shift)
        assert run.whole is not None
        fractions.append(run.whole.image["recovered_signal_fraction"].value)
    assert fractions[1] > fractions[0] + 0.02


def test_micrographs_of_two_pixel_sizes_share_a_frequency_axis(one: Path, model: Path, tmp_path: Path) -> None:
    """Rings of different widths are distributed over one axis, and their total is kept."""
    other = simulate(tmp_path / "other", 1, (420, 460), 3.0, seed=4)
    done = [evaluated(star, model, np.copy)[0] for star in (one, other)]
    whole = evaluate_set(done)
    expected = np.mean([np.sum(each.rings.m1m2) for each in done])
    assert whole.rings["var_signal"].value.sum() == pytest.approx(expected, rel=1e-6)
    assert whole.frequency[1] == max(each.rings.frequency[1] for each in done)


def test_command_prints_the_document_it_writes(one: Path, model: Path, tmp_path: Path) -> None:
    """End to end from the command line, with a real session and the identity as network."""
    arguments = ["evaluate", str(one), str(model), "-o", str(tmp_path / "out"), "--truth", str(one.parent / "truth")]
    done = CliRunner().invoke(build(), [*arguments, "--json", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["set"]["var_bias"]["value"] == pytest.approx(0, abs=1e-5)
    assert (tmp_path / "out" / "config.toml").is_file()
    shown = CliRunner().invoke(build(), [*arguments, "--device", "cpu"])
    assert "recovered signal fraction" in shown.stdout
    arguments[1] = str(_first_row(one))
    alone = CliRunner().invoke(build(), [*arguments, "--device", "cpu"])
    (line,) = (line for line in alone.stdout.splitlines() if line.startswith("SNR, noisy half"))
    assert line.split()[4] == "–"  # a single micrograph has no interval
    assert "nan" not in alone.stdout
