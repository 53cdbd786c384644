"""The version of this package, as its distribution states it: that of the git tag it was built from."""

import re
from importlib.metadata import version


def release_of(text: str) -> str:
    """Return the release number alone, "0.1.0" of "0.1.0.dev3+g0123456": short enough for a label of 80 characters."""
    return re.split(r"[^\d.]|\.(?!\d)", text)[0]


__version__: str = version("n2n-deploy")

RELEASE: str = release_of(__version__)
