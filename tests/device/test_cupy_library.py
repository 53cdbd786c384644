"""Importing CuPy, and the error where that fails."""

import sys

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.device.cupy_library import import_cupy


def test_missing_cupy_names_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(HostError, match=r"n2n-deploy\[gpu\]"):
        import_cupy()
