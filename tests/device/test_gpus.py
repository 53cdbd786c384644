"""Finding a GPU by its index."""

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.device import gpus
from n2n_deploy.device.gpus import GPU, Driver, find_gpu


def test_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver", lambda: Driver(None, None, (), "no NVIDIA driver is installed"))
    with pytest.raises(HostError, match="no NVIDIA driver"):
        find_gpu(0)


def test_gpus_are_counted_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuple(GPU(index, "NVIDIA H100", "9.0", 80 << 30) for index in range(2))
    monkeypatch.setattr(gpus, "driver", lambda: Driver("580.65.06", "13.0", found, None))
    assert find_gpu(1) is found[1]
    with pytest.raises(HostError, match="no GPU 2.*may use 2"):
        find_gpu(2)
