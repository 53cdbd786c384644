"""Networks and a checkpoint with random weights, so that every part affects the output; and running a graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.checkpoint import save_model
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.layers import Network
from n2n_deploy.train.model import add_weight_norm, build

MakeNetwork = Callable[[str], Network]


def run(model: ModelProto, batch: np.ndarray) -> np.ndarray:
    """The model in ONNX Runtime without any of its optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """The network of a preset with weights and biases drawn at random."""

    def make(preset: str) -> Network:
        torch.manual_seed(3)
        network = build(preset)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
                else:  # as after some training, when the pixels that an upsampling layer makes of one differ
                    parameter.add_(0.7 * parameter.std() * torch.randn_like(parameter))
        return network.eval()

    return make


@pytest.fixture(scope="session")
def checkpoint(make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt` of the small preset, saved in the middle of a training with weight normalisation."""
    network = make_network("small")
    add_weight_norm(network)
    path = tmp_path_factory.mktemp("run") / "model.pt"
    recipe = Recipe(max_resolution=8.0, phase_flip=False)
    save_model(path, network, TrainConfig(preset="small", recipe=recipe), 70, {"loss": 0.25, "minutes": 3})
    return path
