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
from n2n_deploy.denoiser import Denoiser
from n2n_deploy.errors import DataError, HostError, UsageError
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.quality import evaluation_run
from n2n_deploy.quality.evaluate import QUANTITIES, MicrographEvaluation, evaluate, summarise
from n2n_deploy.quality.evaluation_run import EvaluationRun, run_evaluation
from n2n_deploy.simulate import simulate

from .conftest import Function, Image, write_convolution

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module", params=[6.0, 60.0, 600.0], ids=lambda dose: f"dose {dose:g}")
def simulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two micrographs, at SNRs (of a half, in the band) from about 0.05 to about 5."""
    return simulate(tmp_path_factory.mktemp("simulated"), 2, (432, 400), 4.0, seed=7, dose=request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("one"), 3, (300, 320), 4.0, seed=2)


def _pattern(shape: tuple[int, ...]) -> Image:
    field = gaussian_filter(np.random.default_rng(9).standard_normal(shape), 2)
    return (0.3 * field / field.std()).astype(np.float32)


DENOISERS: dict[str, Callable[[Image], Image]] = {
    "nothing done": lambda image: image,
    "a blur, whose bias is signal": lambda image: gaussian_filter(image, 1.0),
    "too dark by half": lambda image: 0.5 * gaussian_filter(image, 0.7),
    "a blank": lambda image: 0 * image,
    "a pattern of its own": lambda image: gaussian_filter(image, 1.0) + _pattern(image.shape),
    "not linear": lambda image: np.tanh(2 * gaussian_filter(image, 1.0)),
    "shifted": lambda image: np.roll(gaussian_filter(image, 1.0), 2, axis=0),
}


def measured(star: Path, model: Path, function: Callable[[Image], Image]) -> list[MicrographEvaluation]:
    with Denoiser(model, session=Function(function)) as denoiser:
        result = evaluate(read_micrographs(star, need_halves=True), denoiser, truth=star.parent / "truth")
    assert not result.failures
    return result.done


@pytest.mark.parametrize("kind", DENOISERS)
def test_estimates_agree_with_the_truth(kind: str, simulated: Path, make_model: MakeModel) -> None:
    done = measured(simulated, make_model(), DENOISERS[kind])
    whole = summarise(done)
    assert whole.truth is not None
    found, true = whole.image, whole.truth
    # Covariances of independent noises of variance 1 and less, over the pixels of two images.
    pixels = 2 * (432 * 4 / 6) * (400 * 4 / 6)
    scatter = 6 / np.sqrt(pixels)
    for name in ("var_signal", "var_noise_noisy", "var_bias"):
        assert found[name].value == pytest.approx(getattr(true, name), abs=scatter), name
    # No noise of the other half comes into this one.
    assert found["var_noise_denoised"].value == pytest.approx(true.var_noise_denoised, rel=1e-3, abs=1e-5)
    error = true.var_signal * (true.recovered_signal_fraction - found["recovered_signal_fraction"].value)
    assert abs(error) < 2 * scatter
    rings = summarise(done, bins=12)
    expected = rings.true_rings
    assert expected is not None
    # A ring holds its share of the components, and of the noise.
    power = rings.rings["var_signal"].value + rings.rings["var_noise_noisy"].value
    error = 6 * power / np.sqrt(np.maximum(np.arange(12) + 0.5, 1) / 72 * pixels)
    for name in ("var_signal", "var_noise_noisy", "var_bias"):
        assert np.all(np.abs(rings.rings[name].value - getattr(expected, name)) < error + 1e-9), name
    noise = rings.rings["var_noise_denoised"].value
    np.testing.assert_allclose(noise, expected.var_noise_denoised, rtol=0.01, atol=3e-6)
    recovered = rings.rings["recovered_signal_fraction"].value * rings.rings["var_signal"].value
    assert np.all(np.abs(recovered - expected.recovered_signal_fraction * expected.var_signal) < 2 * error + 1e-9)


def test_doses_differ_in_snr_as_they_should(tmp_path: Path, make_model: MakeModel) -> None:
    """Ten times the electrons, ten times the signal-to-noise ratio: shot noise is all there is."""
    ratios = []
    for dose in (20.0, 200.0):
        star = simulate(tmp_path / f"{dose:g}", 1, (432, 400), 4.0, seed=7, dose=dose)
        ratios.append(summarise(measured(star, make_model(), np.copy)).image["snr_noisy"].value)
    assert ratios[1] / ratios[0] == pytest.approx(10, rel=0.15)


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


def _write(path: Path, image: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image.astype(np.float32))
        mrc.voxel_size = 4.0


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


def test_a_batch_of_denoised_micrographs_is_not_written_over(one: Path, make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "denoised.star").write_text("data_micrographs\n")
    (tmp_path / "report.html").write_text("of the batch")
    with pytest.raises(UsageError, match=r"holds denoised micrographs \(denoised.star\)"):
        run_evaluation(one, make_model(), tmp_path, session=Function(np.copy))
    assert (tmp_path / "report.html").read_text() == "of the batch"


def test_too_little_memory_is_one_line_for_all(one: Path, tmp_path: Path) -> None:
    model = write_convolution(tmp_path / "identity.n2n", np.ones((1, 1), np.float32))
    with pytest.raises(HostError, match="memory"):
        run_evaluation(one, model, tmp_path / "out", device="cpu", memory=10**6)


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
    for augment in (False, True):
        run = run_evaluation(one, make_model(), tmp_path / f"{augment}", augment=augment, session=shift)
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
