"""Evaluation of denoisers on simulated micrographs: estimates against the truth, bad halves, and what is written."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from n2n_deploy.cli.app import build
from n2n_deploy.core.errors import DataError, HostError, UsageError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.evaluation import run as evaluation_run
from n2n_deploy.evaluation.evaluate import QUANTITIES, summarise
from n2n_deploy.evaluation.run import EvaluationRun, run_evaluation
from n2n_deploy.simulate import simulate

from .conftest import Function, MakeModel, measured, write_convolution


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("one"), 3, (300, 320), 4.0, seed=2)


@pytest.fixture
def spoiled(one: Path, tmp_path: Path) -> Path:
    shutil.copytree(one.parent, tmp_path / "data")
    return tmp_path / "data" / "micrographs.star"


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "mic_0002_ODD.mrc").unlink(), "the odd half is not there"),
    "cut short": (lambda folder: (folder / "mic_0002_ODD.mrc").write_bytes(b"MRC"), "mic_0002_ODD.mrc"),
    "identical": (
        lambda folder: shutil.copy(folder / "mic_0002_EVN.mrc", folder / "mic_0002_ODD.mrc"),
        "identical to the odd half",
    ),
    "of another shape": (lambda folder: _write(folder / "mic_0002_ODD.mrc", np.ones((300, 200))), "no signal"),
    "cropped": (lambda folder: _write(folder / "mic_0002_ODD.mrc", _read(folder, 2, "ODD")[:, :200]), "one shape"),
    "the sum": (
        lambda folder: (
            (folder / "mic_0002_ODD.mrc").unlink()
            or (folder / "mic_0002_ODD.mrc").symlink_to(folder / "mic_0002_DW.mrc")
        ),
        "the whole sum itself",
    ),
}


def _read(folder: Path, number: int, half: str) -> np.ndarray:
    return mrcfile.read(folder / f"mic_{number:04d}_{half}.mrc")


def _write(path: Path, image: np.ndarray, pixel_size: float = 4.0) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image.astype(np.float32))
        mrc.voxel_size = pixel_size


@pytest.mark.parametrize("kind", SPOILERS)
def test_a_bad_half_costs_its_micrograph(kind: str, spoiled: Path, make_model: MakeModel, tmp_path: Path) -> None:
    spoil, words = SPOILERS[kind]
    spoil(spoiled.parent / "micrographs")
    run = run_evaluation(spoiled, make_model(), tmp_path / "out", session=Function(np.copy))
    assert [done.micrograph.name for done in run.result.done] == [f"micrographs/mic_000{n}_DW.mrc" for n in (1, 3)]
    assert run.exit_code == 1
    (reason,) = run.result.failures.values()
    assert words in reason
    assert "mic_0002" in reason
    assert "\n" not in reason


def test_halves_of_different_micrographs_are_flagged(spoiled: Path, make_model: MakeModel, tmp_path: Path) -> None:
    folder = spoiled.parent / "micrographs"
    shutil.copy(folder / "mic_0003_ODD.mrc", folder / "mic_0002_ODD.mrc")
    run = run_evaluation(spoiled, make_model(), tmp_path / "out", session=Function(np.copy))
    assert [[flag.kind for flag in done.flags] for done in run.result.done] == [[], ["no signal in common"], []]
    # They would halve the set's signal, and count as noise.
    assert run.result.left_out == run.document["left_out_of_the_set"] == ["micrographs/mic_0002_DW.mrc"]
    assert run.whole is not None
    (spoiled.parent / "micrographs" / "mic_0002_ODD.mrc").unlink()
    without = run_evaluation(spoiled, make_model(), tmp_path / "without", session=Function(np.copy))
    assert without.whole is not None
    for name in ("var_signal", "snr_noisy", "recovered_signal_fraction"):
        assert run.whole.image[name] == without.whole.image[name]


def test_noise_that_halves_share_is_told_beside_the_set(make_model: MakeModel, tmp_path: Path) -> None:
    star = simulate(tmp_path / "fine", 3, (300, 320), 1.0, seed=2, dose=200)  # pixels that reach beyond all signal
    folder = star.parent / "micrographs"
    artefact = np.random.default_rng(5).normal(size=(300, 320))
    for half in ("EVN", "ODD"):
        image = _read(folder, 3, half).copy()
        _write(folder / f"mic_0003_{half}.mrc", image + image.std() * artefact, 1.0)
    shutil.copy(folder / "mic_0001_ODD.mrc", folder / "mic_0002_ODD.mrc")
    run = run_evaluation(star, make_model(), tmp_path / "out", session=Function(np.copy))
    left_out, noisy = run.document["remarks"]
    assert left_out == "1 of 3 micrographs left out of the set: no signal common to their halves"
    assert noisy.startswith("1 of 2 micrographs in the set: noise common to their halves")
    assert len(run.document["each"]) == 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "left out of the set" in page
    assert "noise common to their halves" in page


def test_a_table_without_halves_is_refused(one: Path, make_model: MakeModel, tmp_path: Path) -> None:
    star = tmp_path / "bare.star"
    lines = one.read_text().splitlines()
    star.write_text(
        "\n".join(line for line in lines if "NameEven" not in line and "NameOdd" not in line)
        .replace("_EVN.mrc", "_DW.mrc")
        .replace("_ODD.mrc", "_DW.mrc")
    )
    with pytest.raises(DataError, match="suffixes"):
        run_evaluation(star, make_model(), tmp_path / "out", session=Function(np.copy))


def test_truth_that_is_not_there_or_no_truth(spoiled: Path, make_model: MakeModel, tmp_path: Path) -> None:
    truth = spoiled.parent / "truth"
    (truth / "mic_0001.mrc").unlink()
    _write(truth / "mic_0003.mrc", np.random.default_rng(0).normal(size=(300, 320)))
    run = run_evaluation(spoiled, make_model(), tmp_path / "out", truth=truth, session=Function(np.copy))
    assert "no truth for it" in run.result.failures["micrographs/mic_0001_DW.mrc"]
    assert "expected electrons" in run.result.failures["micrographs/mic_0003_DW.mrc"]
    assert len(run.result.done) == 1


@pytest.fixture(scope="module")
def written(one: Path, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationRun, Path]:
    folder = tmp_path_factory.mktemp("written")
    blur = Function(lambda image: gaussian_filter(image, 1.0))
    return run_evaluation(one, make_model(), folder, truth=one.parent / "truth", session=blur), folder


def test_numbers_on_disk_are_those_measured(written: tuple[EvaluationRun, Path]) -> None:
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


def test_a_folder_tells_of_its_last_evaluation_alone(spoiled: Path, make_model: MakeModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_evaluation(spoiled, make_model(), out, session=Function(np.copy))
    kept = {path.relative_to(out) for path in out.rglob("*") if path.is_file() and ".report" not in path.parts}
    assert len(kept) == 9
    for path in (spoiled.parent / "micrographs").glob("*_ODD.mrc"):
        path.unlink()
    with pytest.raises(DataError):
        run_evaluation(tmp_path / "gone.star", make_model(), out, session=Function(np.copy))
    assert all((out / path).is_file() for path in kept)  # nothing was measured that would take its place
    run_evaluation(spoiled, make_model(), out, session=Function(np.copy))
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and ".report" not in path.parts}
    assert left == {"evaluation.json", "evaluation.csv", "report.html"}


def test_a_shorter_table_leaves_no_rings_of_a_longer_one(one: Path, make_model: MakeModel, tmp_path: Path) -> None:
    out, first = tmp_path / "out", _first_row(one)
    run_evaluation(one, make_model(), out, session=Function(np.copy))
    (out / "rings" / "mine.csv").write_text("somebody else's")
    run_evaluation(first, make_model(), out, session=Function(np.copy))
    assert {path.name for path in (out / "rings").iterdir()} == {"00001_mic_0001_DW.csv", "mine.csv"}


def _first_row(star: Path) -> Path:
    """The same table with its first micrograph alone, in the same folder."""
    path = star.with_name("first.star")
    lines = star.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "mic_0002" not in line and "mic_0003" not in line))
    return path


@pytest.mark.parametrize("name", ["denoised.star", "summary.json"])
def test_a_batch_of_denoised_micrographs_is_not_written_over(
    name: str, one: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    batch = {name: "of the batch", "report.html": "of the batch", "config.toml": "of the batch"}
    for each, text in batch.items():
        (tmp_path / each).write_text(text)
    with pytest.raises(UsageError, match=rf"holds denoised micrographs \({name}\)"):
        run_evaluation(one, make_model(), tmp_path, session=Function(np.copy))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == batch


def test_too_little_memory_is_one_line_for_all(one: Path, tmp_path: Path) -> None:
    model = write_convolution(tmp_path / "identity.n2n", np.ones((1, 1), np.float32))
    with pytest.raises(HostError, match="memory"):
        run_evaluation(one, model, tmp_path / "out", compute=ComputeOptions(device="cpu", memory=10**6))


def test_missing_libraries_cost_pictures_only(
    one: Path, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_run, "missing_libraries", lambda: ["jinja2"])
    run = run_evaluation(one, make_model(), tmp_path / "out", session=Function(np.copy))
    assert "jinja2 not installed" in str(run.report)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"evaluation.json", "evaluation.csv", "rings.csv", "rings"}


def test_averaging_over_views_is_measured_too(one: Path, make_model: MakeModel, tmp_path: Path) -> None:
    """A network that shifts to one side loses what a symmetric one keeps."""
    shift = Function(lambda image: gaussian_filter(np.roll(image, 2, axis=1), 1.0))
    fractions = []
    for tta in (False, True):
        run = run_evaluation(one, make_model(), tmp_path / f"{tta}", tta=tta, session=shift)
        assert run.whole is not None
        fractions.append(run.whole.image["recovered_signal_fraction"].value)
    assert fractions[1] > fractions[0] + 0.02


def test_two_pixel_sizes_share_one_axis(one: Path, make_model: MakeModel, tmp_path: Path) -> None:
    """Rings of different widths are dealt to one axis, and what they hold in all stays."""
    other = simulate(tmp_path / "other", 1, (420, 460), 3.0, seed=4)
    done = [measured(star, make_model(), np.copy)[0] for star in (one, other)]
    whole = summarise(done)
    expected = np.mean([np.sum(each.rings.m1m2) for each in done])
    assert whole.rings["var_signal"].value.sum() == pytest.approx(expected, rel=1e-6)
    assert whole.frequency[1] == max(each.rings.frequency[1] for each in done)


def test_command_prints_the_same_document(one: Path, tmp_path: Path) -> None:
    """The whole way from the command line with a real session: an identity network in ONNX."""
    model = write_convolution(tmp_path / "identity.n2n", np.ones((1, 1), np.float32))
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
    (line,) = (line for line in alone.stdout.splitlines() if line.startswith("snr noisy"))
    assert line.split()[3] == "–"  # of one micrograph there is no interval
    assert "nan" not in alone.stdout
