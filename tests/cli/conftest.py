"""A command line to call and a bundle to call it on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from n2n_deploy.cli import main
from n2n_deploy.train.checkpoint import save_model
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.model import build

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as the command makes it, with `model.pt` beside it."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_model(folder / "model.pt", build("small"), TrainConfig(preset="small"), 12, {"loss": 0.5})
    with pytest.raises(SystemExit) as ended:
        main(["export", str(folder / "model.pt"), "-o", str(folder / "model.n2n")])
    assert ended.value.code == 0
    return folder / "model.n2n"


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three micrographs as the command makes them; the folder."""
    folder = tmp_path_factory.mktemp("simulated") / "sim"
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(folder), "-n", "3", "--size", "192x160", "--pixel-size", "2", "--particles", "1"])
    assert ended.value.code == 0
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call
