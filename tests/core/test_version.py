"""The release number that MRC labels carry, compared with PyPA's `packaging`."""

import pytest
from packaging.version import Version

from n2n_deploy.core.version import RELEASE, __version__, release_of


@pytest.mark.parametrize(
    "text", ["0.1.0", "0.1.0.dev0", "0.1.1.dev238+g2fca4d7e0.d20261127", "1.0rc1", "1.2.post1", "2.10.3a2.dev1"]
)
def test_the_release_is_packaging_s_base_version(text: str) -> None:
    assert release_of(text) == Version(text).base_version


def test_the_package_s_own_release() -> None:
    assert Version(__version__).base_version == RELEASE
