"""OpenVINO's session: its results against ONNX Runtime's own kernels, its memory, and its errors."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.openvino import library
from n2n_deploy.engines.openvino.run import OpenVinoSession
from n2n_deploy.engines.select import deviation
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.io.mrc import write_mrc
from n2n_deploy.train.wide import WideNetwork

Graph = Callable[[str, Precision], onnx.ModelProto]

SHAPES = ((1, 1, 64, 72), (2, 1, 40, 56), (1, 1, 136, 64), (1, 1, 64, 72))

MEASURE = """
import re, sys, numpy
sys.modules["onnx"] = sys.modules["torch"] = None
from n2n_deploy.engines.openvino.run import OpenVinoSession

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

with OpenVinoSession(open(sys.argv[1], "rb").read(), threads=2, precision=sys.argv[2]) as session:
    batch = numpy.ones((1, 1, 768, 640), numpy.float32)
    resident = kilobytes("VmRSS")
    for _ in range(2):
        session.run(batch)
    print(1024 * (kilobytes("VmHWM") - resident), session.memory((768, 640)))
print(1024 * (kilobytes("VmRSS") - resident))
"""

SHORT = """
import resource, sys, numpy
from n2n_deploy.engines.openvino.run import OpenVinoSession
from n2n_deploy.core.errors import OutOfMemoryError

session = OpenVinoSession(open(sys.argv[1], "rb").read(), threads=2)
small, large = (numpy.ones((1, 1, side, side), numpy.float32) for side in (64, 1536))
before = session.run(small)
held = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (held + 200 * 2**20, resource.RLIM_INFINITY))
try:
    session.run(large)
except OutOfMemoryError as error:
    print(error)
assert (session.run(small) == before).all()
"""


SIDE_BY_SIDE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from n2n_deploy.engines.openvino.run import OpenVinoSession

model = sys.stdin.buffer.read()
with ThreadPoolExecutor(8) as pool:
    for session in pool.map(lambda _: OpenVinoSession(model, threads=1), range(8)):
        session.close()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that needs much more memory than the presets for CPUs do: what is measured is not the fixed part."""
    path = tmp_path / "wide.onnx"
    path.write_bytes(to_onnx(WideNetwork(16, 3)).SerializeToString())
    return path


def peers_outputs(model: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of `SHAPES`, and what ONNX Runtime's own kernels make of them."""
    plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    return [(batch, plain.run(None, {"image": batch})[0]) for batch in batches]


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("preset", ["small", "fast", "paper"])
def test_outputs_equal_those_of_onnx_runtimes_own_kernels(graph: Graph, preset: str) -> None:
    model = graph(preset, "fp32").SerializeToString()
    with OpenVinoSession(model, threads=2, precision="fp32") as session:
        for batch, expected in peers_outputs(model):
            found = session.run(batch)
            assert found.shape == expected.shape
            assert found.dtype == np.float32
            assert deviation(found, expected).max < 1e-4


@pytest.mark.usefixtures("plugin")
def test_bfloat16_is_as_precise_as_8_bits_allow(graph: Graph) -> None:
    if not multiplies_bfloat16():
        pytest.skip("this processor has no AMX")
    model = graph("fast", "fp32").SerializeToString()
    with OpenVinoSession(model, threads=2) as session:
        for batch, expected in peers_outputs(model):
            assert 2**-12 < deviation(session.run(batch), expected).rms < 2**-4


@pytest.mark.usefixtures("plugin")
def test_threads_share_a_session(graph: Graph) -> None:
    model = graph("small", "fp32").SerializeToString()
    batches, expected = zip(*(peers_outputs(model) * 3), strict=True)
    with OpenVinoSession(model, precision="fp32") as session, ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(session.run, batches), expected, strict=True):
            assert deviation(found, wanted).max < 1e-4


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_is_an_upper_bound_and_is_freed(model: Path, precision: str) -> None:
    if precision == "bf16" and not multiplies_bfloat16():
        pytest.skip("this processor has no AMX")
    command = [sys.executable, "-c", MEASURE, str(model), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    used, estimate, kept = map(int, done.stdout.split())
    assert estimate / 3 < used <= estimate
    assert kept < used / 3


@pytest.mark.usefixtures("plugin")
def test_image_too_large_for_memory_does_not_end_the_session(model: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SHORT, str(model)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "not enough memory for 1536×1536 pixels at once" in done.stdout


@pytest.mark.usefixtures("plugin")
def test_errors_are_one_line(graph: Graph) -> None:
    model = graph("small", "fp32").SerializeToString()
    with pytest.raises(BundleError, match="cannot load"):
        OpenVinoSession(b"no model")
    with pytest.raises(UsageError, match="0 threads"):
        OpenVinoSession(model, threads=0)
    with pytest.raises(HostError, match="bf16, fp32, int8 on the CPU, not in fp16"):
        OpenVinoSession(model, precision="fp16")
    with OpenVinoSession(model) as session:
        with pytest.raises(BundleError) as caught:
            session.run(np.zeros((1, 1, 20, 24), np.float32))
        assert "\n" not in str(caught.value)
        assert np.isfinite(session.run(np.ones((1, 1, 24, 24), np.float32))).all()
    with pytest.raises(HostError, match="closed"):
        session.run(np.zeros((1, 1, 24, 24), np.float32))


def test_missing_plugin_names_the_extra_that_installs_it(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_register", library._register.__wrapped__)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    with pytest.raises(HostError, match=r"pip install 'n2n-deploy\[openvino\]'"):
        OpenVinoSession(graph("small", "fp32").SerializeToString())


@pytest.mark.usefixtures("plugin")
def test_unsupported_processor_is_refused(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [device for device in onnxruntime.get_ep_devices() if device.ep_name != library.PROVIDER]
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: others)
    for _ in range(2):
        with pytest.raises(HostError, match="does not support this processor"):
            OpenVinoSession(graph("small", "fp32").SerializeToString())


@pytest.mark.usefixtures("plugin")
def test_sessions_open_concurrently(graph: Graph) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE], input=graph("small", "fp32").SerializeToString(), timeout=120
    )
    assert done.returncode == 0


@pytest.mark.usefixtures("plugin")
def test_second_control_c_within_an_image_ends_cleanly(bundle: Bundle, tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((3072, 3072), dtype=np.float32)
    for number in range(6):
        write_mrc(tmp_path / f"m{number}.mrc", image, pixel_size=1.5, label="noise")
    command = [sys.executable, "-m", "n2n_deploy", "denoise", f"{tmp_path}/m*.mrc", str(bundle.path)]
    command += ["-o", str(tmp_path / "out"), "--engine", "openvino", "--no-report"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/**/*.mrc")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, said
    assert "terminate" not in said
