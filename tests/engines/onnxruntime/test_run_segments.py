"""`SegmentedSession`: its memory against its estimate, and its errors."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.engines.onnxruntime.run_segments import SegmentedSession
from n2n_deploy.export.segments import split

Graph = Callable[[str, Precision], onnx.ModelProto]

MEASURE = """
import pickle, re, sys
import numpy as np
from n2n_deploy.engines.onnxruntime.run_segments import SegmentedSession

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

session = SegmentedSession(pickle.load(open(sys.argv[1], "rb")), threads=2)
image = np.zeros((1, 1, 640, 768), np.float32)
resident = kilobytes("VmRSS")
for _ in range(2):
    session.run(image)
print(1024 * (kilobytes("VmHWM") - resident), session.memory((640, 768)))
"""


@pytest.fixture
def segments(graph: Graph) -> list[bytes]:
    return [each.SerializeToString() for each in split(graph("small", "fp32"))]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_within_the_estimate(segments: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "segments").write_bytes(pickle.dumps(segments))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "segments")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used, estimate = map(int, done.stdout.split())
    assert 0 < used <= estimate


def test_closed_session_does_not_run(segments: list[bytes]) -> None:
    with SegmentedSession(segments, threads=1) as session:
        assert session.run(np.ones((1, 1, 16, 24), np.float32)).shape == (1, 1, 16, 24)
    with pytest.raises(HostError, match="closed"):
        session.run(np.ones((1, 1, 16, 24), np.float32))


def test_wrong_shape_is_refused_and_the_session_goes_on(segments: list[bytes]) -> None:
    with SegmentedSession(segments, threads=2) as session:
        with pytest.raises(BundleError, match="cannot run the model"):
            session.run(np.ones((1, 2, 16, 24), np.float32))
        assert np.isfinite(session.run(np.ones((1, 1, 16, 24), np.float32))).all()


def test_model_that_is_not_a_segment_is_refused(graph: Graph) -> None:
    for model in (b"no model", graph("small", "fp32").SerializeToString()):
        with pytest.raises(BundleError, match="export.* again"):
            SegmentedSession([model])
    with pytest.raises(UsageError, match="0 threads"):
        SegmentedSession([], threads=0)
