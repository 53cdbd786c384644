"""Lanes and tiles planned ahead, against sums done by hand and against trying every number of lanes."""

import re
from dataclasses import replace
from typing import Any

import pytest

from n2n_deploy.core.errors import HostError
from n2n_deploy.denoiser.memory_plan import WORTH_A_LANE, MemoryPlan, Need, Supply, plan_memory
from n2n_deploy.engines.session import Closing

HALO = 16
NEED = Need(shape=(1000, 1200), pixel_size=1.0, count=10, size=(400, 480), pixels=10_000_000, work=20_000_000)
NETWORK = 400 * 480 * 100 + 1000
WHOLE = NETWORK + 8 * 400 * 480
"""Of a whole image: the network, the image and its result."""


class PerPixel(Closing):
    """A session that needs 100 bytes a pixel."""

    name, array_module = "per-pixel", "numpy"

    def run(self, batch: Any) -> Any:
        return batch

    def memory(self, shape: tuple[int, int]) -> int:
        return 100 * shape[0] * shape[1] + 1000

    def close(self) -> None: ...


def plan(supply: Supply, asked: int = 4, *needs: Need) -> MemoryPlan:
    return plan_memory(needs or (NEED,), asked, supply, HALO, PerPixel())


def test_on_the_cpu_lanes_share_one_network() -> None:
    total = 50_000_000 + 4 * 30_000_000 + WHOLE
    found = plan(Supply(host=total, process=50_000_000))
    assert (found.lanes, found.tiles, found.host, found.device) == (4, ((400, 480),), total, 0)
    assert found.computed == 10 * 400 * 480


def test_on_gpus_each_lane_has_a_network_and_all_share_the_host() -> None:
    device, host = 4 * (20_000_000 + WHOLE), 50_000_000 + 2 * 4 * 10_000_000
    found = plan(Supply(host=host, process=50_000_000, device=device, gpus=2))
    assert (found.lanes, found.tiles, found.host, found.device) == (4, ((400, 480),), host, device)
    # One byte less on either side, and what was asked for no longer fits as it is.
    assert plan(Supply(host=host - 1, process=50_000_000, device=device, gpus=2)).lanes == 3
    short = plan(Supply(host=host, process=50_000_000, device=device - 4, gpus=2))
    assert (short.lanes, short.tiles) != (4, ((400, 480),))


@pytest.mark.parametrize("free", range(30_000_000, 200_000_000, 10_000_000))
@pytest.mark.parametrize("gpus", [0, 1])
def test_the_plan_fits_and_is_the_most_lanes_that_do_without_much_more_work(free: int, gpus: int) -> None:
    supply = Supply(host=free, process=1_000_000)
    if gpus:
        supply = Supply(host=10**9, process=1_000_000, device=free, gpus=gpus)
    single: dict[int, MemoryPlan] = {}
    for lanes in range(1, 5):
        try:
            found = plan(supply, lanes)
        except HostError:
            continue
        assert found.host <= supply.host
        assert found.device <= (supply.device or 0)
        assert found.lanes <= lanes
        single[found.lanes] = found
    if not single:
        with pytest.raises(HostError, match="MB"):
            plan(supply)
        return
    chosen = plan(supply)
    assert chosen.lanes == max(single)
    assert chosen.computed <= WORTH_A_LANE * min(each.computed for each in single.values())


def test_less_memory_means_fewer_lanes_or_more_work_and_says_so() -> None:
    ample = plan(Supply(host=10**9, process=0))
    tight = plan(Supply(host=60_000_000, process=0))
    assert ample.lanes == 4
    assert tight.lanes < 4
    assert tight.computed >= ample.computed
    assert not any("in place of" in line for line in ample.lines())
    assert any(f"{tight.lanes} lanes in place of 4" in line for line in tight.lines())


def test_other_lanes_may_have_the_largest_micrographs_in_hand() -> None:
    small = replace(NEED, size=(80, 80), pixels=1_000_000, work=2_000_000)
    total = 2 * 30_000_000 + WHOLE
    found = plan(Supply(host=total, process=0), 2, small, NEED)
    assert (found.lanes, found.tiles, found.host) == (2, ((80, 80), (400, 480)), total)


@pytest.mark.parametrize("device", [None, 5 * 10**9])
def test_the_lines_add_up(device: int | None) -> None:
    giga = replace(NEED, pixels=int(0.25e9), work=int(0.5e9))
    lines = plan(Supply(host=20 * 10**9, process=10**9, device=device, gpus=2 if device else 1), 3, giga).lines()
    for line in lines:
        sum_text, _, total = line.partition(": ")[2].partition(" = ")
        expression = re.sub(r"[A-Za-z]+", "", sum_text).replace("×", "*")
        assert eval(expression) == pytest.approx(float(total.split()[0]), abs=0.05)


def test_nothing_fits() -> None:
    with pytest.raises(HostError, match=r"needs at least \d+ MB"):
        plan(Supply(host=31_000_000, process=0))
    with pytest.raises(HostError, match="the host needs"):
        plan(Supply(host=5_000_000, process=0, device=10**9))
