"""Several models on the same halves: the numbers are those of each alone, in one band, and the difference is paired."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from bundle_builder import general_stand_in, one_layer, one_layer_bundle

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.denoiser.model_choice import open_alike
from n2n_deploy.evaluation.comparison import Comparison, compare_models
from n2n_deploy.evaluation.evaluation_run import run_evaluation
from n2n_deploy.simulate import simulate

CPU = ComputeOptions(device="cpu", engine="onnxruntime-cpu")


def smoothing(width: int) -> bytes:
    """A network that averages over a square of this many pixels."""
    kernel = np.full((width, width), 1 / width**2)
    return one_layer("Conv", kernel, pads=[width // 2] * 4)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three simulated micrographs, with their truth beside it."""
    return simulate(tmp_path_factory.mktemp("one"), 3, (300, 320), 4.0, seed=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three networks that smooth by more and more pixels; the last takes any resolution and phase."""
    folder = tmp_path_factory.mktemp("models")
    recipe = {"max_resolution": 12.0, "phase_flip": True, "halo": 8}
    return [
        one_layer_bundle(folder / "identity.n2n", **recipe),
        one_layer_bundle(folder / "smooth.n2n", smoothing(3), **recipe),
        general_stand_in(folder / "any.n2n", smoothing(5)),
    ]


@pytest.fixture(scope="module")
def compared(one: Path, models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("compared")
    return compare_models(one, models, folder, compute=CPU, truth=one.parent / "truth"), folder


def test_each_model_has_the_numbers_that_it_has_alone(
    compared: tuple[Comparison, Path], one: Path, models: list[Path], tmp_path: Path
) -> None:
    found, folder = compared
    assert [result.name for result in found.results] == ["identity.n2n", "smooth.n2n", "any.n2n"]
    alone = run_evaluation(one, models[1], tmp_path / "alone", compute=CPU)
    assert alone.whole is not None
    assert found.results[1].whole is not None
    for name, interval in alone.whole.image.items():
        assert found.results[1].whole.image[name].value == pytest.approx(interval.value, rel=1e-6)
    assert (folder / "2-smooth" / "evaluation.json").exists()
    assert not found.remarks
    assert found.exit_code == 0


def test_the_model_with_a_range_follows_the_others(compared: tuple[Comparison, Path]) -> None:
    (_, fixed, general) = compared[0].results
    assert general.bundle.recipe.max_resolution == fixed.bundle.recipe.max_resolution == 12.0
    assert general.run.document["run"]["recipe"]["max_resolution"] == 12.0


def test_the_gain_is_the_true_one_and_better_known_than_the_values(compared: tuple[Comparison, Path]) -> None:
    first, second, _ = compared[0].results
    assert first.gain is None
    assert second.gain is not None
    assert first.whole is not None
    assert second.whole is not None
    name = "recovered_signal_fraction"
    values = [result.whole.image[name] for result in (first, second)]
    truths = [getattr(result.whole.truth, name) for result in (first, second)]
    assert second.gain.value == pytest.approx(values[1].value - values[0].value)
    assert second.gain.value == pytest.approx(truths[1] - truths[0], rel=0.1)
    assert second.gain.value > 0
    unpaired = np.hypot(*(interval.high - interval.low for interval in values))
    assert second.gain.high - second.gain.low < unpaired


def test_files_hold_the_numbers_of_every_model(compared: tuple[Comparison, Path]) -> None:
    found, folder = compared
    document = json.loads((folder / "comparison.json").read_text())
    assert [model["model"] for model in document["models"]] == ["identity.n2n", "smooth.n2n", "any.n2n"]
    with (folder / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups = list(dict.fromkeys(row["model"] for row in rows))
    assert groups == [result.name for result in found.results]
    for model in document["models"]:
        (row,) = (r for r in rows if r["model"] == model["model"] and r["quantity"] == "snr_denoised")
        assert float(row["value"]) == pytest.approx(model["set"]["snr_denoised"]["value"], rel=1e-6)


def test_the_report_shows_the_models_side_by_side(compared: tuple[Comparison, Path]) -> None:
    page = (compared[1] / "report.html").read_text()
    assert "Comparison of identity.n2n and smooth.n2n and any.n2n" in page
    assert "recovered signal fraction less that of identity.n2n" in page
    assert page.count("data:image/png;base64,") == 2
    rows = json.loads(page.split('id="rows">')[1].split("</script>")[0])
    assert len(rows) == 9
    assert rows[0]["name"].endswith("_DW.mrc · any.n2n")


def test_models_of_different_bands_are_compared_with_a_remark(one: Path, models: list[Path], tmp_path: Path) -> None:
    finer = one_layer_bundle(tmp_path / "finer.n2n", max_resolution=10.0, phase_flip=True)
    found = compare_models(one, [models[0], finer], tmp_path / "out", compute=CPU)
    (remark,) = found.remarks
    assert "max_resolution 12 Å and 10 Å" in remark
    with pytest.raises(UsageError, match="12 Å alone"):
        compare_models(one, [models[0], finer], tmp_path / "other", max_resolution=10.0, compute=CPU)


def test_two_models_of_one_file_name_are_kept_apart(one: Path, models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = one_layer_bundle(tmp_path / "b" / "smooth.n2n", max_resolution=12.0, phase_flip=True)
    found = compare_models(one, [models[1], other], tmp_path / "out", compute=CPU)
    assert [result.name for result in found.results] == [str(models[1]), str(other)]
    assert (tmp_path / "out" / "2-smooth" / "report.html").exists()


def test_a_range_is_followed_to_its_end(one: Path, models: list[Path], tmp_path: Path) -> None:
    coarse = one_layer_bundle(tmp_path / "coarse.n2n", max_resolution=15.0, phase_flip=False)
    _, general = open_alike([coarse, models[2]], one)
    assert (general.recipe.max_resolution, general.recipe.phase_flip) == (12.0, False)
