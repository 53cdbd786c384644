"""A training that starts from a trained network: its weights, preset and recipe, and never for the worse."""

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_builder import one_layer_bundle
from typer.testing import CliRunner

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.cli.app import build as build_app
from n2n_deploy.core.errors import BundleError, DataError, N2NError, UsageError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.export import export_bundle
from n2n_deploy.train import TrainConfig, load_checkpoint, load_model
from n2n_deploy.train.checkpoint import save_model
from n2n_deploy.train.fit import fit
from n2n_deploy.train.model import build
from n2n_deploy.train.patches import write_patches
from n2n_deploy.train.starting_point import load_starting_point
from n2n_deploy.train.store import PatchStore


@pytest.fixture
def start(tmp_path: Path, small_recipe: Recipe) -> Path:
    """A checkpoint of preset small after 40 steps of some training, with random weights."""
    torch.manual_seed(5)
    config = TrainConfig(preset="small", recipe=small_recipe)
    save_model(tmp_path / "start.pt", build("small"), config, 40, {"loss": 0.5})
    return tmp_path / "start.pt"


@pytest.fixture
def config(small_recipe: Recipe, start: Path) -> TrainConfig:
    return TrainConfig(recipe=small_recipe, start=str(start), epochs=1, batches_per_epoch=3, batch_size=2, device="cpu")


def test_a_network_is_rebuilt_from_its_bundle(start: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(export_bundle(start, tmp_path / "model.n2n"))
    rebuilt, original = load_checkpoint(bundle.path), load_checkpoint(start)
    assert (rebuilt.preset, rebuilt.recipe, rebuilt.step) == ("small", original.recipe, 40)
    assert rebuilt.summary == {"loss": 0.5}
    for name, values in original.weights.items():
        assert torch.equal(rebuilt.weights[name], values), name
    inputs, outputs = bundle.golden()
    with torch.no_grad():
        again = rebuilt.network()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(again, outputs, rtol=0, atol=1e-5 * outputs.std())


def test_what_is_no_trained_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.pt"):
        load_checkpoint(tmp_path / "nowhere.pt")
    (tmp_path / "empty.n2n").touch()
    with pytest.raises(BundleError, match="is not a bundle"):
        load_checkpoint(tmp_path / "empty.n2n")
    renamed = one_layer_bundle(tmp_path / "model.n2n").rename(tmp_path / "model.zip")
    with pytest.raises(BundleError, match=r"model\.zip: carries no trainable weights"):
        load_checkpoint(renamed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "fast"}, r"--preset fast: .*start\.pt.* is small; leave --preset out"),
        ({"max_resolution": 6.0}, r"start\.pt.* trained for 8 Å alone, not for a max_resolution of 6 Å"),
        ({"phase_flip": True}, r"start\.pt.* trained on unflipped phases alone"),
        ({"highpass": 100.0}, r"--highpass 100: .*trained with 200 Å"),
    ],
)
def test_what_contradicts_the_start_is_refused(change: dict[str, Any], message: str, config: TrainConfig) -> None:
    recipe = {name: value for name, value in change.items() if name != "preset"}
    asked = config.model_copy(
        update={"preset": change.get("preset", "auto"), "recipe": config.recipe.model_copy(update=recipe)}
    )
    with pytest.raises(UsageError, match=message):
        load_starting_point(asked)


def test_patches_may_have_another_size(config: TrainConfig) -> None:
    recipe = config.recipe.model_copy(update={"patch_size": 64})
    assert load_starting_point(config.model_copy(update={"recipe": recipe})) is not None


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_run_starts_from_the_weights(
    optimiser: str, store: PatchStore, config: TrainConfig, start: Path, tmp_path: Path
) -> None:
    """At a vanishing learning rate the network stays what it was."""
    still = config.model_copy(update={"learning_rate": 1e-12, "optimiser": optimiser})
    model = load_model(fit(store, tmp_path / "run", still))
    assert (model.preset, model.step) == ("small", 3)
    assert model.summary["config"]["start"] == str(start)
    for name, values in load_model(start).weights.items():
        torch.testing.assert_close(model.weights[name], values, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("no_pictures")
def test_a_start_that_no_step_improves_on_is_kept(
    store: PatchStore, config: TrainConfig, start: Path, tmp_path: Path
) -> None:
    spoiling = config.model_copy(update={"learning_rate": 0.5, "schedule": "cosine", "validation_fraction": 0.2})
    model = load_model(fit(store, tmp_path / "run", spoiling))
    assert (model.step, model.summary["best_step"]) == (3, 0)
    assert all(torch.equal(model.weights[name], values) for name, values in load_model(start).weights.items())
    rows = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    assert rows[1].startswith("0,")


@pytest.mark.usefixtures("no_pictures")
def test_a_run_resumes_without_the_network_that_it_started_from(
    store: PatchStore, config: TrainConfig, start: Path, tmp_path: Path
) -> None:
    straight = load_model(fit(store, tmp_path / "straight", config))
    fit(store, tmp_path / "run", config, progress=lambda _: os.kill(os.getpid(), signal.SIGINT))
    start.unlink()
    resumed = load_model(fit(store, tmp_path / "run", config, resume=True))
    assert math.isfinite(resumed.summary["validation_loss"])
    assert all(torch.equal(resumed.weights[name], values) for name, values in straight.weights.items())
    other = config.model_copy(update={"start": None, "preset": "small"})
    with pytest.raises(UsageError, match="start ="):
        fit(store, tmp_path / "run", other, resume=True)


def test_a_range_of_recipes_may_be_chosen_from(start: Path, config: TrainConfig, tmp_path: Path) -> None:
    """Also after the way through a bundle; what is trained then is for one recipe."""
    content = torch.load(start, weights_only=True)
    content["summary"]["accepts"] = {"max_resolution": [6.0, 10.0], "either_phase": True}
    torch.save(content, start)
    bundle = export_bundle(start, tmp_path / "model.n2n")
    for path in (start, bundle):
        for change in ({"max_resolution": 6.0}, {"max_resolution": 10.0, "phase_flip": True}):
            recipe = config.recipe.model_copy(update=change)
            assert load_starting_point(config.model_copy(update={"recipe": recipe, "start": str(path)})) is not None
        recipe = config.recipe.model_copy(update={"max_resolution": 5.0})
        with pytest.raises(UsageError, match="for 6 to 10 Å, not for a max_resolution of 5 Å"):
            load_starting_point(config.model_copy(update={"recipe": recipe, "start": str(path)}))


def test_a_run_from_a_trained_network_begins_at_half_the_rate(config: TrainConfig) -> None:
    for preset in ("small", "paper"):
        fresh = TrainConfig(preset=preset)
        assert fresh.model_copy(update={"start": "general"}).rate(0) == pytest.approx(fresh.rate(0) / 2)
    assert config.model_copy(update={"learning_rate": 0.1}).rate(0) == 0.1


@pytest.mark.usefixtures("no_pictures")
def test_inverted_contrast_is_seen_inverted(
    store: PatchStore, config: TrainConfig, tmp_path: Path, small_recipe: Recipe
) -> None:
    """A training on negatives with `invert` is the training on the images themselves, to the bit."""
    files = []
    for index, corners in enumerate(store.corners):
        numbers = np.arange(len(corners)) + index * len(corners)
        files.append(tmp_path / f"negative{index}.h5")
        write_patches(files[-1], -store.read(numbers).astype(np.float32), corners, "negative", small_recipe)
    plain = load_model(fit(store, tmp_path / "plain", config))
    inverted = load_model(fit(PatchStore(files), tmp_path / "inverted", config.model_copy(update={"invert": True})))
    assert all(torch.equal(inverted.weights[name], values) for name, values in plain.weights.items())
    assert inverted.summary["validation_loss"] == plain.summary["validation_loss"]


def run_command(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), ["train", *map(str, arguments)])


def test_the_command_follows_the_networks_recipe(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], start: Path
) -> None:
    bundle = export_bundle(start, tmp_path / "model.n2n")
    table, short = write_table({"a": halves(1)}), ("--epochs", 1, "--batches", 2, "--batch-size", 2, "--device", "cpu")
    done = run_command(table, "-o", tmp_path / "run", "--from", bundle, "--suffixes", "DW,EVN,ODD", *short)
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "run" / "model.pt")
    assert (model.preset, model.recipe, model.summary["pairs"]) == ("small", Bundle.open(bundle).recipe, "halves")
    # Without halves, too.
    done = run_command(table, "-o", tmp_path / "other", "--from", bundle, *short)
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "other" / "model.pt").summary["pairs"] == "recorrupted"
    refused = run_command(table, "-o", tmp_path / "third", "--from", bundle, "--max-resolution", 6, *short)
    assert isinstance(refused.exception, UsageError)
    assert "not for a max_resolution of 6 Å" in str(refused.exception)
    assert not (tmp_path / "third").exists()


def test_a_general_model_that_is_not_there_is_named(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2n_deploy.data.GENERAL_MODEL", tmp_path / "general.n2n")
    with pytest.raises(N2NError, match="no general model"):
        load_starting_point(config.model_copy(update={"start": "general"}))


def test_a_network_that_takes_both_phases_gets_those_of_a_table_with_ctfs_flipped(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], start: Path
) -> None:
    content = torch.load(start, weights_only=True)
    content["summary"]["accepts"] = {"max_resolution": [8.0, 8.0], "either_phase": True}
    torch.save(content, start)
    short = ("--from", start, "--suffixes", "DW,EVN,ODD", "--epochs", 1, "--batches", 1, "--batch-size", 2)
    for known in (True, False):
        table, out = write_table({"a": halves(1)}, ctf=known), tmp_path / str(known)
        done = run_command(table, "-o", out, *short, "--device", "cpu")
        assert done.exit_code == 0, done.output
        model = load_model(out / "model.pt")
        assert model.recipe.phase_flip is known
        assert "accepts" not in model.summary
