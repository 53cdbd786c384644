"""A processing node: the wheel and its runtime dependencies in their own environment, without PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from star_builder import star_table

ROOT = Path(__file__).resolve().parents[2]
STAR = star_table(
    {"rlnMicrographName": ["mic.mrc"], "rlnDefocusU": 15000.0, "rlnDefocusV": 14800.0, "rlnDefocusAngle": 20.0},
    pixel_size=2.0,
)


@pytest.fixture(scope="module")
def node(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel and its `cpu` extra."""
    folder = tmp_path_factory.mktemp("node")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [folder / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle exported in this environment, which has PyTorch."""
    import torch

    from n2n_deploy.core.recipe import Recipe
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train.checkpoint import save_model
    from n2n_deploy.train.config import TrainConfig
    from n2n_deploy.train.model import build

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = TrainConfig(preset="small", recipe=Recipe(max_resolution=8.0))
    save_model(folder / "model.pt", build("small"), config, 0, {})
    return export_bundle(folder / "model.pt", folder / "model.n2n")


def _run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The checkout and this environment must not be importable.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_node_denoises_without_torch(node: Path, bundle: Path, tmp_path: Path) -> None:
    from n2n_deploy import ComputeOptions, CTFParameters, Denoiser, Optics

    image = np.random.default_rng(0).poisson(20, (250, 330)).astype(np.float32)
    with mrcfile.new(tmp_path / "mic.mrc") as mrc:
        mrc.set_data(image)
        mrc.voxel_size = 2.0
    (tmp_path / "mics.star").write_text(STAR)
    assert _run(node / "python", "-c", "import torch", cwd=tmp_path).returncode != 0
    done = _run(node / "n2n-deploy", "denoise", "mics.star", bundle, "-o", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["denoised"] == 1
    with Denoiser(bundle, compute=ComputeOptions(engine="onnxruntime-cpu")) as denoiser:
        here = denoiser(image, Optics(2.0, 300.0, 2.7, 0.1), CTFParameters(15000.0, 14800.0, 20.0))
    with mrcfile.open(tmp_path / "out" / "mic.mrc") as mrc:
        np.testing.assert_allclose(mrc.data, here, atol=1e-4 * here.std())


def test_the_node_names_the_extra_that_training_needs(node: Path, tmp_path: Path) -> None:
    (tmp_path / "mics.star").write_text(STAR)
    done = _run(node / "n2n-deploy", "train", "mics.star", "-o", "run", cwd=tmp_path)
    assert done.returncode == 3
    assert "n2n-deploy[train]" in " ".join(done.stderr.split())


def test_import_and_verify(node: Path, bundle: Path, tmp_path: Path) -> None:
    assert _run(node / "python", "-c", "import n2n_deploy; n2n_deploy.denoise", cwd=tmp_path).returncode == 0
    assert _run(node / "n2n-deploy", "verify", bundle, cwd=tmp_path).returncode == 0
