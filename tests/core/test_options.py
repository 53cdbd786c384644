"""The options that all commands share: what they accept, and that each is declared once."""

from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import ValidationError

from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.cli.app import build
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import ComputeOptions, NamingOptions, parse_device
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.config import TrainConfig


def test_gpu_and_cuda_are_the_same_device_everywhere() -> None:
    assert ComputeOptions(device="cuda") == ComputeOptions(device="gpu")
    assert DenoiseOptions(device="cuda").devices == ("gpu",)
    assert TrainConfig(device="cuda").device == TrainConfig(device="gpu").device == "gpu"
    assert [parse_device(name) for name in ("auto", "cpu", "cuda:3")] == ["auto", "cpu", "cuda:3"]


@pytest.mark.parametrize("name", ["", "tpu", "cuda:", "cuda:x", "gpu:0", "GPU"])
def test_unknown_devices_are_rejected_with_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match="choose auto, cpu, gpu"):
        parse_device(name)
    for model in (ComputeOptions, DenoiseOptions, TrainConfig):
        with pytest.raises(ValidationError, match="choose auto, cpu, gpu"):
            model(device=name)


def test_texts_of_the_command_line_and_values_of_python_are_the_same_options() -> None:
    assert ComputeOptions.model_validate({"memory": "1.5 GB"}) == ComputeOptions(memory=1_500_000_000)
    suffixes = ("DW", "EVN", "ODD")
    assert NamingOptions.model_validate({"suffixes": "DW,EVN,ODD"}) == NamingOptions(suffixes=suffixes)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"memory": 0}, "greater than 0"),
        ({"memory": "three"}, "use e.g. 3GB"),
        ({"gpus": ()}, "at least 1 item"),
        ({"gpus": (0, 1), "device": "cpu"}, "exclude each other"),
        ({"precision": "fp8"}, "'fp32', 'fp16', 'bf16' or 'int8'"),
        ({"lane": 2}, "Extra inputs"),
    ],
)
def test_invalid_compute_options_are_rejected(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ComputeOptions(**values)


def test_options_travel_through_json() -> None:
    options = DenoiseOptions(gpus=(0, 1), memory=10**9, trusted_keys=Path("keys"), merge_resolution=8.0)
    assert DenoiseOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    ("command", "models"),
    [
        ("denoise", (DenoiseOptions, NamingOptions)),
        ("evaluate", (NamingOptions,)),
        ("train", (TrainConfig, Recipe, NamingOptions)),
    ],
)
def test_a_command_has_an_option_with_the_same_default_for_each_field(command: str, models: tuple[Any, ...]) -> None:
    parameters = {each.name: each for each in typer.main.get_command(build()).commands[command].params}  # type: ignore[attr-defined]
    for model in models:
        for name, field in model.model_fields.items():
            if name != "recipe":
                assert parameters[name].default == field.default, name
