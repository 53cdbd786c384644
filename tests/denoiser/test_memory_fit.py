"""Lanes and tiles that fit, against sums done by hand and against trying every number of lanes."""

import re
from dataclasses import replace
from typing import Any

import pytest

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.sizes import parse_bytes
from n2n_deploy.denoiser.memory import MemoryBudget, MemoryRequirement
from n2n_deploy.denoiser.memory_fit import WORTH_A_LANE, MemoryFit, fit_memory
from n2n_deploy.device.host import HOST

HALO = 16
SIZE = MemoryRequirement(
    shape=(1000, 1200), pixel_size=1.0, count=10, size=(400, 480), pixels=10_000_000, work=20_000_000
)
NETWORK = 400 * 480 * 100 + 1000
WHOLE = NETWORK + 8 * 400 * 480
"""Of a whole image: the network, the image and its result."""


class PerPixel(Closing):
    """A session that needs 100 bytes a pixel."""

    name, device = "per-pixel", HOST

    def run(self, batch: Any) -> Any:
        return batch

    def memory(self, shape: tuple[int, int]) -> int:
        return 100 * shape[0] * shape[1] + 1000

    def close(self) -> None: ...


def fit(budget: MemoryBudget, asked: int = 4, *sizes: MemoryRequirement) -> MemoryFit:
    return fit_memory(sizes or (SIZE,), asked, budget, HALO, PerPixel())


def test_on_the_cpu_lanes_share_one_network() -> None:
    total = 50_000_000 + 4 * 30_000_000 + WHOLE
    found = fit(MemoryBudget(host=total, process=50_000_000))
    assert (found.lanes, found.tiles, found.host, found.device) == (4, ((400, 480),), total, 0)
    assert found.computed == 10 * 400 * 480


def test_on_gpus_each_lane_has_a_network_and_all_share_the_host() -> None:
    device, host = 4 * (20_000_000 + WHOLE), 50_000_000 + 2 * 4 * 10_000_000
    found = fit(MemoryBudget(host=host, process=50_000_000, device=device, gpus=2))
    assert (found.lanes, found.tiles, found.host, found.device) == (4, ((400, 480),), host, device)
    # One byte less on either side, and what was asked for no longer fits as it is.
    assert fit(MemoryBudget(host=host - 1, process=50_000_000, device=device, gpus=2)).lanes == 3
    short = fit(MemoryBudget(host=host, process=50_000_000, device=device - 4, gpus=2))
    assert (short.lanes, short.tiles) != (4, ((400, 480),))


@pytest.mark.parametrize("free", range(30_000_000, 200_000_000, 10_000_000))
@pytest.mark.parametrize("gpus", [0, 1])
def test_it_is_the_most_lanes_that_fit_without_much_more_work(free: int, gpus: int) -> None:
    budget = MemoryBudget(host=free, process=1_000_000)
    if gpus:
        budget = MemoryBudget(host=10**9, process=1_000_000, device=free, gpus=gpus)
    single: dict[int, MemoryFit] = {}
    for lanes in range(1, 5):
        try:
            found = fit(budget, lanes)
        except HostError:
            continue
        assert found.host <= budget.host
        assert found.device <= (budget.device or 0)
        assert found.lanes <= lanes
        single[found.lanes] = found
    if not single:
        with pytest.raises(HostError, match="GB"):
            fit(budget)
        return
    chosen = fit(budget)
    assert chosen.lanes == max(single)
    assert chosen.computed <= WORTH_A_LANE * min(each.computed for each in single.values())


def test_less_memory_means_fewer_lanes_or_more_work_and_says_so() -> None:
    ample = fit(MemoryBudget(host=10**9, process=0))
    tight = fit(MemoryBudget(host=60_000_000, process=0))
    assert ample.lanes == 4
    assert tight.lanes < 4
    assert tight.computed >= ample.computed
    assert not any("in place of" in line for line in ample.lines())
    assert any(f"{tight.lanes} lanes in place of 4" in line for line in tight.lines())


def test_other_lanes_may_be_working_on_the_largest_micrographs() -> None:
    small = replace(SIZE, size=(80, 80), pixels=1_000_000, work=2_000_000)
    total = 2 * 30_000_000 + WHOLE
    found = fit(MemoryBudget(host=total, process=0), 2, small, SIZE)
    assert (found.lanes, found.tiles, found.host) == (2, ((80, 80), (400, 480)), total)


@pytest.mark.parametrize("device", [None, 5 * 10**9])
def test_the_lines_add_up(device: int | None) -> None:
    giga = replace(SIZE, pixels=int(0.25e9), work=int(0.5e9))
    lines = fit(MemoryBudget(host=20 * 10**9, process=10**9, device=device, gpus=2 if device else 1), 3, giga).lines()
    for line in lines:
        sum_text, _, total = line.partition(": ")[2].partition(" = ")
        expression = re.sub(r"[A-Za-z]+", "", sum_text).replace("×", "*")
        assert eval(expression) == pytest.approx(float(total.split()[0]), abs=0.05)


def test_too_little_memory_for_one_lane_is_an_error() -> None:
    with pytest.raises(HostError, match=r"0\.03 GB are allowed: give --memory 0\.\d\dGB"):
        fit(MemoryBudget(host=31_000_000, process=0))
    with pytest.raises(HostError, match=r"need 0\.02 GB of host memory.* give --memory 0\.02GB"):
        fit(MemoryBudget(host=5_000_000, process=0, device=10**9))
    with pytest.raises(HostError, match=r"of GPU memory, .*; 0\.02 GB are free"):
        fit(MemoryBudget(host=10**9, process=0, device=20_000_001))


@pytest.mark.parametrize("process", [0, 450_000_000])
@pytest.mark.parametrize("gpu", [False, True])
def test_the_memory_that_the_message_names_is_enough_and_hardly_more_than_needed(process: int, gpu: bool) -> None:
    large = replace(SIZE, shape=(4000, 5000), size=(1600, 2000), pixels=800_000_000, work=200_000_000)
    device = 10**9 if gpu else None
    with pytest.raises(HostError) as refused:
        fit(MemoryBudget(host=60_000_000, process=process, device=device), 4, large)
    named = parse_bytes(str(refused.value).partition("--memory ")[2].partition(" ")[0])
    assert fit(MemoryBudget(host=named, process=process, device=device), 4, large).lanes >= 1
    with pytest.raises(HostError):
        fit(MemoryBudget(host=int(0.93 * named), process=process, device=device), 4, large)
