"""The training loop: it learns, resumes bit for bit, and leaves a usable model however it ends."""

import csv
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from n2n_deploy.core.errors import DataError, HostError, N2NError, UsageError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train import fit as fit_module
from n2n_deploy.train.checkpoint import load_model, load_state
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.fit import Progress, fit
from n2n_deploy.train.model import build
from n2n_deploy.train.patches import write_patches
from n2n_deploy.train.run import start
from n2n_deploy.train.store import PatchStore


class KilledError(BaseException):
    """Simulates a kill: nothing is saved on the way out."""


@pytest.fixture
def config(small_recipe: Recipe) -> TrainConfig:
    return TrainConfig(
        preset="small",
        recipe=small_recipe,
        epochs=2,
        batches_per_epoch=2,
        batch_size=2,
        device="cpu",
        schedule="linear",
    )


def at_step(step: int, action: Callable[[], Any]) -> Callable[[Progress], None]:
    def act(progress: Progress) -> None:
        if progress.step == step:
            action()

    return act


def kill() -> None:
    raise KilledError


def assert_same_bits(one: Path, other: Path) -> None:
    """Weights and Adam's moments of two runs are the same, bit for bit."""
    first, second = load_model(one / "model.pt"), load_model(other / "model.pt")
    assert first.step == second.step
    for name, weights in first.weights.items():
        assert torch.equal(weights, second.weights[name]), name
    moments = [load_state(folder / "state.pt")["optimiser"]["state"] for folder in (one, other)]
    for index, values in moments[0].items():
        assert all(torch.equal(value, moments[1][index][name]) for name, value in values.items())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("amx", [False, True])
def test_a_short_training_beats_the_raw_half_and_a_blank_image(
    amx: bool, store: PatchStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2n_deploy.train.run.multiplies_bfloat16", lambda: amx)
    path = fit(
        store, tmp_path / "run", config.model_copy(update={"epochs": 14, "batch_size": 4, "learning_rate": 2e-3})
    )
    numbers = np.arange(len(store))
    even, odd = store.read(numbers).astype(np.float32).swapaxes(0, 1)
    with torch.inference_mode():
        denoised = load_model(path).network()(torch.from_numpy(even[:, None])).numpy()[:, 0]
    error = np.mean((denoised - odd) ** 2)
    # Equal power of signal and noise: the raw half scores 1 against the other, an empty image too, the truth 1/2.
    assert np.mean((even - odd) ** 2) == pytest.approx(1, abs=0.1)
    assert 0.5 < error < 0.85


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_stopped_run_resumes_to_the_same_bits(
    how: str, store: PatchStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(store, tmp_path / "straight", config)
    stopped = tmp_path / "stopped"
    if how == "kill":
        monkeypatch.setattr(fit_module, "_SAVE_EVERY", 0.0)
        with pytest.raises(KilledError):
            fit(store, stopped, config, progress=at_step(2, kill))
        monkeypatch.setattr(fit_module, "_SAVE_EVERY", 120.0)
    else:
        fit(store, stopped, config, progress=at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
        assert load_model(stopped / "model.pt").summary["ended"] == "interrupted"
    assert load_state(stopped / "state.pt")["step"] == 2
    fit(store, stopped, config, resume=True)
    assert_same_bits(tmp_path / "straight", stopped)


@pytest.mark.usefixtures("no_pictures")
def test_a_state_saved_without_fused_adam_resumes(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    fit(store, tmp_path, config)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for group in state["optimiser"]["param_groups"]:
        group["fused"] = None
    torch.save(state, tmp_path / "state.pt")
    assert load_model(fit(store, tmp_path, config.model_copy(update={"epochs": 3}), resume=True)).step == 6


@pytest.mark.usefixtures("no_pictures")
def test_a_run_killed_before_its_first_save_starts_again(
    store: PatchStore, config: TrainConfig, tmp_path: Path
) -> None:
    fit(store, tmp_path / "straight", config)
    with pytest.raises(KilledError):
        fit(store, tmp_path / "killed", config, progress=at_step(1, kill))
    fit(store, tmp_path / "killed", config, resume=True)
    assert_same_bits(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.usefixtures("no_pictures")
def test_signal_handlers_are_restored_after_the_run(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(store, tmp_path, config, progress=at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert load_model(tmp_path / "model.pt").step == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.usefixtures("no_pictures")
def test_max_minutes_ends_with_a_usable_model(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    limited = config.model_copy(update={"max_minutes": 1 / 60, "epochs": 10_000, "schedule": None})
    seen: list[Progress] = []
    path = fit(store, tmp_path, limited, progress=seen.append)
    model = load_model(path)
    assert model.summary["ended"] == "time"
    assert model.step == seen[-1].step < limited.steps
    assert seen[-1].done == 1
    assert [progress.learning_rate for progress in seen] == sorted(
        (progress.learning_rate for progress in seen), reverse=True
    )
    assert model.network()(torch.zeros(1, 1, 16, 24)).shape == (1, 1, 16, 24)


def test_files_of_a_finished_run(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    path = fit(store, tmp_path, config.model_copy(update={"epochs": 10}), facts={"data_set": "test"})
    content = torch.load(path, weights_only=True)
    assert content["format"] == 1
    assert content["preset"] == "small"
    assert Recipe(**content["recipe"]) == config.recipe
    assert content["step"] == 20
    assert content["summary"]["data_set"] == "test"
    assert content["summary"]["ended"] == "complete"
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [int(row["step"]) for row in rows] == [10, 20]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    for name in ("curves.png", "validation.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_neither_overwritten_nor_resumed_as_another(
    store: PatchStore, config: TrainConfig, tmp_path: Path
) -> None:
    fit(store, tmp_path, config)
    with pytest.raises(UsageError, match="--resume"):
        fit(store, tmp_path, config)
    with pytest.raises(UsageError, match="batch_size = 2"):
        fit(store, tmp_path, config.model_copy(update={"batch_size": 3}), resume=True)
    longer = config.model_copy(update={"epochs": 3})
    assert load_model(fit(store, tmp_path, longer, resume=True)).step == 6


@pytest.mark.usefixtures("no_pictures")
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_model(
    store: PatchStore, config: TrainConfig, tmp_path: Path, small_recipe: Recipe
) -> None:
    fit(store, tmp_path / "run", config)
    good = load_model(tmp_path / "run" / "model.pt")
    nothing = np.full((8, 2, 32, 32), np.nan, np.float32)
    write_patches(tmp_path / "nan.h5", nothing, np.arange(16).reshape(8, 2) * 32, "nan", small_recipe)
    spoiled = PatchStore([tmp_path / "nan.h5"])
    with pytest.raises(N2NError, match=r"nan at step 5; .*model.pt holds an earlier state; .*--learning-rate"):
        fit(spoiled, tmp_path / "run", config.model_copy(update={"epochs": 3}), resume=True)
    kept = load_model(tmp_path / "run" / "model.pt")
    assert kept.step == good.step
    assert all(torch.equal(kept.weights[name], weights) for name, weights in good.weights.items())


@pytest.mark.usefixtures("no_pictures")
def test_a_step_whose_loss_is_not_finite_leaves_the_weights_alone(config: TrainConfig, tmp_path: Path) -> None:
    run = start(tmp_path, config, torch.device("cpu"), resume=False, facts={})
    before = [weights.detach().clone() for weights in run.network.parameters()]
    nothing = torch.full((1, 1, 32, 32), torch.nan)
    loss = run.network(nothing).square().mean()
    loss.backward()
    with pytest.raises(N2NError, match="nothing was saved yet"):
        run.update(loss)
    assert all(map(torch.equal, before, run.network.parameters()))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("amx", "asked"), [(True, True), (True, False), (False, True)])
def test_bfloat16_is_used_only_where_the_processor_multiplies_it(
    amx: bool, asked: bool, store: PatchStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2n_deploy.train.run.multiplies_bfloat16", lambda: amx)
    kinds = set()
    forward = torch.nn.Conv2d.forward

    def noted(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        output = forward(layer, images)
        kinds.add(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noted)
    path = fit(store, tmp_path, config.model_copy(update={"epochs": 1, "bf16": asked}))
    assert kinds == {torch.bfloat16 if amx and asked else torch.float32}
    assert {weights.dtype for weights in load_model(path).weights.values()} == {torch.float32}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_network_runs_in_channels_last(
    preset: str, store: PatchStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and in validation, forward and backward: what convolutions get and give has PyTorch's strides."""
    strides: list[tuple[torch.Size, tuple[int, ...]]] = []
    forward = torch.nn.Conv2d.forward

    def noted(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        output = forward(layer, images)
        if output.requires_grad:
            output.register_hook(lambda gradient: strides.append((gradient.shape, gradient.stride())))
        strides.extend((each.shape, each.stride()) for each in (images, output))
        return output

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noted)
    fit(store, tmp_path, config.model_copy(update={"epochs": 1, "preset": preset}))
    assert len(strides) > 3 * sum(isinstance(module, torch.nn.Conv2d) for module in build(preset).modules())
    for (_, channels, _, width), stride in strides:
        assert channels == 1 or stride[1:] == (1, channels * width, channels)


@pytest.mark.usefixtures("no_pictures")
def test_a_missing_gpu_is_an_error(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(HostError, match=re.escape(missing)):
        fit(store, tmp_path, config.model_copy(update={"device": missing}))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_models_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.pt"):
        load_model(tmp_path / "model.pt")


@pytest.mark.usefixtures("no_pictures")
def test_a_model_of_a_newer_format_is_refused(store: PatchStore, config: TrainConfig, tmp_path: Path) -> None:
    path = fit(store, tmp_path, config)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format": 2}, path)
    with pytest.raises(DataError, match="update n2n-deploy"):
        load_model(path)


@pytest.mark.usefixtures("no_pictures")
def test_weights_of_what_a_preset_was_before_are_refused(
    store: PatchStore, config: TrainConfig, tmp_path: Path
) -> None:
    path = fit(store, tmp_path, config)
    for name in ("model.pt", "state.pt"):
        content = torch.load(tmp_path / name, weights_only=True)
        weights = content["weights" if name == "model.pt" else "network"]
        weights["down.0.wide.0.expand.bias"] = weights.pop(next(iter(weights)))
        torch.save(content, tmp_path / name)
    with pytest.raises(DataError, match="not those of this version's preset 'small'"):
        load_model(path).network()
    with pytest.raises(DataError, match=r"state\.pt: .* not those of this version's preset 'small'"):
        fit(store, tmp_path, config.model_copy(update={"epochs": 3}), resume=True)
