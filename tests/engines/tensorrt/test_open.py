"""Opening a TensorRT session: which of the bundle's engines fit, and which GPUs are refused."""

import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.engine_facts import EngineFacts
from n2n_deploy.bundle.members import engine_member
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.device import gpus
from n2n_deploy.device.gpus import GPU, Driver
from n2n_deploy.engines.engine import Request
from n2n_deploy.engines.select import choose_session
from n2n_deploy.engines.tensorrt.open import NODE_PROFILES, open_tensorrt, shipped_engines
from n2n_deploy.engines.tensorrt.profiles import make_profiles
from n2n_deploy.export.tensorrt_graph import LARGEST_TENSOR, largest_tensor
from n2n_deploy.train.model import PRESETS

ADA = GPU(0, "NVIDIA RTX 6000 Ada", "8.9", 48 << 30)


def test_gpu_without_rtx_kernels_is_rejected(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = Driver("580.65.06", "13.0", (GPU(0, "NVIDIA H200", "9.0", 141 << 30),), None)
    monkeypatch.setattr(gpus, "driver", lambda: hopper)
    with pytest.raises(HostError, match=r"7\.5, .* 12\.1, and NVIDIA H200 has 9\.0"):
        open_tensorrt("rtx", bundle, Request())
    choice = choose_session(bundle, "auto", threads=1)
    with choice.session:
        assert not choice.session.device.is_gpu
    assert "NVIDIA H200" in choice.rejected_engines["rtx"]


def facts(**changes: object) -> EngineFacts:
    given: dict[str, object] = {
        "library": "rtx",
        "precision": "fp32",
        "tensorrt_version": "1.7.1.116",
        "compute_capabilities": ("8.9", "12.0"),
        "hardware": "listed",
        "profiles": make_profiles([(512, 512)]),
    }
    return EngineFacts.model_validate(given | changes)


def test_fitting_engines_are_sorted_by_precision(bundle: Bundle) -> None:
    engines = [
        facts(),
        facts(precision="bf16"),
        facts(precision="fp16"),
        facts(precision="fp16", compute_capabilities=("8.6",)),
        facts(precision="fp16", tensorrt_version="1.6.1.120"),
    ]
    known = {engine.key: engine.model_dump(mode="json") for engine in engines}
    members = {engine_member(key): b"engine" for key in known}
    extended = extend_bundle(bundle, members, facts={"engines": known})
    fitting, rejected = shipped_engines(extended, "rtx", "1.7.1.116", ADA)
    assert [engine.precision for engine in fitting] == ["fp16", "bf16", "fp32"]
    assert "not 8.9" in rejected[engines[3].key]
    assert "built by rtx 1.6.1.120" in rejected[engines[4].key]
    assert shipped_engines(extended, "tensorrt", "10.13.3.9", ADA)[0] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_engine_built_on_a_node_stays_within_tensorrts_limits(graph, preset: str) -> None:  # type: ignore[no-untyped-def]
    assert largest_tensor(graph(preset, "fp32"), NODE_PROFILES[0].maximum)[1] < LARGEST_TENSOR
