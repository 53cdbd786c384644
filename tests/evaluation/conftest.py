"""Evaluations of denoisers that are functions, on simulated micrographs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_builder import one_layer_bundle
from function_session import FunctionSession, Image

from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.evaluation.table_evaluation import evaluate_table
from n2n_deploy.io.star import read_micrographs


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose recipe flips phases, up to 12 Å; its network is the identity, but most tests pass a session."""
    return one_layer_bundle(tmp_path_factory.mktemp("model") / "model.n2n", max_resolution=12.0, phase_flip=True)


def evaluated(star: Path, model: Path, function: Callable[[Image], Image]) -> list[MicrographEvaluation]:
    """Evaluate a function as the denoiser on a simulated set whose ground truth is known."""
    with Denoiser(model, session=FunctionSession(function)) as denoiser:
        result = evaluate_table(read_micrographs(star, need_halves=True), denoiser, truth=star.parent / "truth")
    assert not result.failures
    return result.done
