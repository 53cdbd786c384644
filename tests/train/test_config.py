"""The learning-rate schedule against the paper, and values that a configuration refuses."""

import pytest
from pydantic import ValidationError

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.config import TrainConfig


def test_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert (config.epochs, config.batches_per_epoch, config.batch_size) == (100, 500, 10)
    assert (config.preset, config.recipe.patch_size, config.steps) == ("auto", 192, 50_000)


def test_the_device_chooses_the_network_unless_it_is_named() -> None:
    assert TrainConfig().chosen("cuda").preset == "paper"
    assert TrainConfig().chosen("cpu").preset == "fast"
    assert TrainConfig(preset="small").chosen("cuda").preset == "small"


def test_the_papers_network_is_trained_as_in_the_paper_and_others_as_is_faster() -> None:
    chosen = {preset: TrainConfig(preset=preset) for preset in ("paper", "fast", "small")}
    assert {preset: config.method for preset, config in chosen.items()} == {
        "paper": "adam",
        "fast": "muon",
        "small": "muon",
    }
    assert [config.course for config in chosen.values()] == ["paper", "linear", "linear"]
    assert TrainConfig(preset="small", optimiser="adam").method == "adam"


def test_paper_schedule_is_decremented_by_a_quarter_every_25_epochs() -> None:
    config = TrainConfig(preset="paper")
    rates = [config.rate(config.done(epoch * 500, seconds=0.0)) for epoch in (0, 24, 25, 50, 75, 99)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.75e-4, 0.5e-4, 0.25e-4, 0.25e-4])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_falling_schedules_go_from_the_first_rate_to_zero(schedule: str) -> None:
    config = TrainConfig(schedule=schedule, learning_rate=2e-3)
    assert config.rate(0) == pytest.approx(2e-3)
    assert config.rate(0.5) == pytest.approx(1e-3)
    assert config.rate(1) == pytest.approx(0, abs=1e-18)


def test_max_minutes_lets_the_clock_lead() -> None:
    config = TrainConfig(max_minutes=2)
    assert config.rate(config.done(0, seconds=0)) == pytest.approx(7e-4)
    assert config.rate(config.done(10, seconds=60)) == pytest.approx(3.5e-4)
    assert config.done(10, seconds=121) == 1
    assert config.done(50_000, seconds=1) == 1


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"validation_fraction": 0.9}, {"schedule": "steps"}, {"max_minutes": 0}, {"typo": 1}]
)
def test_invalid_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**values)


def test_config_survives_json() -> None:
    config = TrainConfig(preset="small", recipe=Recipe(max_resolution=8, phase_flip=False), max_minutes=3)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
