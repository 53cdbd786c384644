"""Which shapes an engine takes, and where an engine runs."""

import pytest
from pydantic import ValidationError

from n2n_deploy.bundle.engine_facts import EngineFacts, Profile
from n2n_deploy.core.errors import UsageError
from n2n_deploy.engines.tensorrt.profiles import MOST_PROFILES, choose_profile, plan_profiles


def test_a_profile_for_each_shape_the_most_frequent_first() -> None:
    profiles = plan_profiles([(800, 800), (1512, 2128), (1512, 2128)], batch=2)
    assert [profile.optimum for profile in profiles] == [(2, 1, 1512, 2128), (2, 1, 800, 800)]
    assert all(profile.maximum == profile.optimum for profile in profiles)


def test_golden_vectors_always_fit() -> None:
    (only,) = plan_profiles([(512, 512)], must_take=(192, 192))
    assert only.takes((1, 1, 192, 192))
    _, extra = plan_profiles([(2048, 128)], must_take=(192, 192))
    assert extra.maximum == (1, 1, 192, 192)


def test_each_shape_runs_in_the_smallest_profile_that_takes_it() -> None:
    profiles = plan_profiles([(2128, 1512), (1512, 2128), (1024, 1024)])
    assert choose_profile(profiles, (1, 1, 1000, 1024)) == 2
    assert choose_profile(profiles, (1, 1, 1400, 2000)) == 1
    assert choose_profile(profiles, (1, 1, 2000, 1400)) == 0
    assert choose_profile(profiles, (1, 1, 2000, 2000)) is None
    assert choose_profile(profiles, (2, 1, 512, 512)) is None


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([], "--sizes"),
        ([(512, 24)], "at least 32"),
        ([(512, 256 + 8 * n) for n in range(MOST_PROFILES + 1)], "--tile"),
    ],
)
def test_shapes_that_make_no_engine_are_refused(shapes: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan_profiles(shapes)


def test_a_profile_is_ordered() -> None:
    with pytest.raises(ValidationError, match="minimum ≤ optimum ≤ maximum"):
        Profile(minimum=(1, 1, 64, 64), optimum=(1, 1, 32, 32), maximum=(1, 1, 128, 128))


def facts(**changes: object) -> EngineFacts:
    given: dict[str, object] = {
        "flavour": "tensorrt",
        "precision": "fp16",
        "tensorrt_version": "10.13.3.9",
        "compute_capabilities": ("8.6",),
        "hardware": "none",
        "profiles": plan_profiles([(512, 512)]),
    }
    return EngineFacts.model_validate(given | changes)


PORTABLE = {"hardware": "ampere_plus", "version_compatible": True}
RTX = {"flavour": "rtx", "tensorrt_version": "1.7.1.116", "hardware": "listed"}


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


def test_keys_tell_engines_apart() -> None:
    engines = [facts(), facts(precision="fp32"), facts(**PORTABLE), facts(**RTX), facts(tensorrt_version="11.0.0.1")]
    assert len({engine.key for engine in engines}) == len(engines)
