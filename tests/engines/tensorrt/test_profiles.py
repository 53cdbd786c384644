"""Which optimisation profiles are built for micrographs, and which one runs a shape."""

import pytest

from n2n_deploy.core.errors import UsageError
from n2n_deploy.engines.tensorrt.profiles import MOST_PROFILES, choose_profile, make_profiles


def test_each_shape_has_a_profile_the_most_frequent_first() -> None:
    profiles = make_profiles([(800, 800), (1512, 2128), (1512, 2128)], batch=2)
    assert [profile.optimum for profile in profiles] == [(2, 1, 1512, 2128), (2, 1, 800, 800)]
    assert all(profile.maximum == profile.optimum for profile in profiles)


def test_golden_vectors_always_fit() -> None:
    (only,) = make_profiles([(512, 512)], must_take=(192, 192))
    assert only.takes((1, 1, 192, 192))
    _, extra = make_profiles([(2048, 128)], must_take=(192, 192))
    assert extra.maximum == (1, 1, 192, 192)


def test_smallest_fitting_profile_is_chosen() -> None:
    profiles = make_profiles([(2128, 1512), (1512, 2128), (1024, 1024)])
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
def test_unsuitable_shapes_are_refused(shapes: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_profiles(shapes)
