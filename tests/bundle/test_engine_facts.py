"""What a bundle states of its engines: where each runs, and how the manifest writes it."""

import json

import pytest
from pydantic import ValidationError

from n2n_deploy.bundle.engine_facts import EngineFacts, Profile
from n2n_deploy.bundle.manifest import Deviation, Manifest, parse_manifest

PROFILE = Profile(minimum=(1, 1, 32, 32), optimum=(1, 1, 512, 512), maximum=(1, 1, 512, 512))


def test_profile_is_ordered() -> None:
    with pytest.raises(ValidationError, match="minimum ≤ optimum ≤ maximum"):
        Profile(minimum=(1, 1, 64, 64), optimum=(1, 1, 32, 32), maximum=(1, 1, 128, 128))


def facts(**changes: object) -> EngineFacts:
    given: dict[str, object] = {
        "library": "tensorrt",
        "precision": "fp16",
        "tensorrt_version": "10.13.3.9",
        "compute_capabilities": ("8.6",),
        "hardware": "none",
        "profiles": (PROFILE,),
    }
    return EngineFacts.model_validate(given | changes)


PORTABLE = {"hardware": "ampere_plus", "version_compatible": True}
RTX = {"library": "rtx", "tensorrt_version": "1.7.1.116", "hardware": "listed"}


@pytest.mark.parametrize(
    ("engine", "here", "obstacle"),
    [
        (facts(), ("tensorrt", "10.13.3.9", "8.6"), None),
        (facts(), ("tensorrt", "10.13.3.9.post1", "8.6"), None),
        (facts(), ("tensorrt", "10.14.1.48", "8.6"), "built by tensorrt 10.13.3.9"),
        (facts(), ("tensorrt", "10.13.3.9", "8.9"), "8.6, not 8.9"),
        (facts(), ("rtx", "1.7.1.116", "8.6"), "for tensorrt, not rtx"),
        (facts(**PORTABLE), ("tensorrt", "10.14.1.48", "12.0"), None),
        (facts(**PORTABLE), ("tensorrt", "10.12.0.36", "9.0"), "versions 10.13.3.9 to 10.x"),
        (facts(**PORTABLE), ("tensorrt", "11.0.0.1", "9.0"), "versions 10.13.3.9 to 10.x"),
        (facts(**PORTABLE), ("tensorrt", "10.14.1.48", "7.5"), "8.0 or later"),
        (facts(**RTX, compute_capabilities=("8.6", "12.0")), ("rtx", "1.7.1.116", "12.0"), None),
        (facts(**RTX, compute_capabilities=("8.6", "12.0")), ("rtx", "1.7.1.116", "8.9"), "not 8.9"),
    ],
)
def test_where_an_engine_runs(engine: EngineFacts, here: tuple[str, str, str], obstacle: str | None) -> None:
    found = engine.obstacle(*here)  # type: ignore[arg-type]
    assert found is None if obstacle is None else found is not None and obstacle in found


def test_keys_distinguish_engines() -> None:
    engines = [facts(), facts(precision="fp32"), facts(**PORTABLE), facts(**RTX), facts(tensorrt_version="11.0.0.1")]
    assert len({engine.key for engine in engines}) == len(engines)


def test_library_is_called_flavour_in_the_manifest() -> None:
    engine = facts(**RTX)
    manifest = Manifest(
        preset="small", halo=64, tolerance={"fp32": Deviation(max=1e-3, rms=1e-4)}, engines={engine.key: engine}
    )
    written = json.loads(manifest.to_json())["engines"][engine.key]
    assert written["flavour"] == "rtx"
    assert "library" not in written
    assert parse_manifest(manifest.to_json(), "model.n2n") == manifest
    assert EngineFacts.model_validate(written) == engine
    assert Manifest.model_validate(manifest.model_dump()) == manifest
