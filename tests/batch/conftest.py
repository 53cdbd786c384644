"""A bundle whose network returns its input: what a batch then writes is known from the input alone; and its account."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import onnx
import pytest
import starfile
from onnx import TensorProto, helper

from n2n_deploy.batch.run import Progress
from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.recipe import Recipe

PIXEL_SIZE = 2.0
SHAPE = (192, 232)

MakeBundle = Callable[..., Path]
MakeTable = Callable[..., Path]


def _identity() -> bytes:
    axes = ["n", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["denoised"])],
        "identity",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("denoised", TensorProto.FLOAT, axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"bytes_per_pixel": "8"})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture
def identity_bundle(tmp_path: Path) -> MakeBundle:
    """Make a bundle with an identity network; arguments go to its recipe."""

    def make(name: str = "identity.n2n", **recipe: object) -> Path:
        import io

        patch = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
        golden = io.BytesIO()
        np.savez(golden, inputs=patch, outputs=patch)
        tight = Deviation(max=1e-4, rms=1e-5)
        write_bundle(
            tmp_path / name,
            Manifest(preset="small", halo=0, tolerance={"fp32": tight, "fp16": tight}),
            Recipe(**{"max_resolution": 8.0, "phase_flip": False, **recipe}),
            {
                "model.fp32.onnx": _identity(),
                "model.fp16.onnx": _identity(),
                "golden.npz": golden.getvalue(),
            },
        )
        return tmp_path / name

    return make


def band_limited(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Waves with wavelengths between 20 and 60 Å, whole periods on the frame, around a grey level of 100."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = np.full(shape, 100.0)
    for _ in range(12):
        resolution, angle = rng.uniform(20, 60), rng.uniform(0, np.pi)
        ky = round(shape[0] * PIXEL_SIZE / resolution * np.sin(angle))
        kx = round(shape[1] * PIXEL_SIZE / resolution * np.cos(angle))
        image += rng.normal() * np.cos(2 * np.pi * (ky * y / shape[0] + kx * x / shape[1]) + rng.uniform(0, 6))
    return image.astype(np.float32)


STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnMicrographPixelSize #6
opticsGroup1 1 300.0 2.7 0.1 2.0

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnCtfMaxResolution #6
"""


@pytest.fixture
def table(tmp_path: Path) -> MakeTable:
    """Write `count` micrographs below tmp_path/job/ and a RELION 3.1 table of them; returns the table."""

    def make(count: int = 3) -> Path:
        (tmp_path / "job" / "mics").mkdir(parents=True)
        rows = ""
        for number in range(count):
            name = f"job/mics/m{number}.mrc"
            with mrcfile.new(tmp_path / name) as mrc:
                mrc.set_data(band_limited(number))
                mrc.voxel_size = PIXEL_SIZE
            rows += f"{name} 1 {15000 + number}.5 14900.0 30.0 3.{number}50\n"
        (tmp_path / "micrographs.star").write_text(STAR + rows)
        return tmp_path / "micrographs.star"

    return make


def listed(path: Path) -> list[str]:
    names = starfile.read(path, always_dict=True)["micrographs"]["rlnMicrographName"]
    return sorted(Path(name).name for name in names)


def log(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def after(finished: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """Act once that many micrographs are done."""

    def progress(event: Progress) -> None:
        if event.finished == finished and event.outcome is not None:
            act()

    return progress


def start(source: Path, bundle: Path, out: Path, *more: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "n2n_deploy", "denoise", source, bundle, "-o", out, "--no-report", *more]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=source.parent)


@pytest.fixture
def pipe() -> Iterator[Callable[[Path], None]]:
    """Make files that never answer whoever opens them; they are answered after the test, so that no thread stays."""
    made: list[Path] = []

    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        made.append(path)

    yield make
    for path in made:
        if path.is_fifo():
            answer(path)


def answer(path: Path) -> None:
    """Let whoever waits for such a file find it empty."""
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
