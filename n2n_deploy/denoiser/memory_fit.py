"""How many lanes, and which tiles, fit the memory budget; decided before the first micrograph.

On the CPU all lanes share one network and the host's memory: process + lanes × (pixels + Fourier work) + network.
On a GPU each lane has a network of its own, GPU: lanes × (Fourier work + network), and the host holds what is copied to
and from it, host: process + lanes of all GPUs × pixels. Where that is too much there are fewer lanes, or tiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from n2n_deploy.core.errors import HostError
from n2n_deploy.denoiser.memory import MemoryBudget, MemoryRequirement, network_memory
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tiling import choose_tile, count_tiles, least_requirement

WORTH_A_LANE = 1.1
"""Times the network's least work that one more lane may cost in halos: it hides reading and writing behind them."""

_GB = 1e9

_MARGIN = 1.03
"""The process itself does not hold the same memory in each run."""


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Lanes and tiles that fit the budget.

    Attributes:
        asked: lanes that were asked for, on each GPU.
        lanes: lanes that fit, on each GPU.
        budget: what may be used.
        requirements: what micrographs of each size take.
        tiles: (height, width) of the network's tiles for each of these sizes.
        network: bytes that the network takes at most: once on the CPU, for each lane on a GPU.
        computed: pixels that the network computes for all micrographs, halos included.
    """

    asked: int
    lanes: int
    budget: MemoryBudget
    requirements: tuple[MemoryRequirement, ...]
    tiles: tuple[tuple[int, int], ...]
    network: int
    computed: int

    @property
    def host(self) -> int:
        """Bytes of host memory that the process will hold at the peak."""
        return host_memory(self.requirements, self.lanes, self.budget) + (
            self.network if self.budget.device is None else 0
        )

    @property
    def device(self) -> int:
        """Bytes that the lanes of one GPU will hold there; 0 on the CPU."""
        if self.budget.device is None:
            return 0
        return self.lanes * (max(each.work for each in self.requirements) + self.network)

    def lines(self) -> list[str]:
        """Describe it to users: a line for each kind of memory, and one for lanes that do not fit."""
        budget, lanes = self.budget, self.lanes * self.budget.gpus
        pixels, work = (max(getattr(each, name) for each in self.requirements) / _GB for name in ("pixels", "work"))
        network = f"network {self.network / _GB:.2f}"
        process = f"process {budget.process / _GB:.2f}"
        within = f"= {self.host / _GB:.2f} of {budget.host / _GB:.2f} GB"
        if budget.device is None:
            lines = [f"memory: {process} + {lanes} lanes × (pixels {pixels:.2f} + FFT {work:.2f}) + {network} {within}"]
        else:
            lines = [
                f"memory of each GPU: {self.lanes} lanes × (FFT {work:.2f} + {network}) = {self.device / _GB:.2f} of "
                f"{budget.device / _GB:.2f} GB",
                f"memory of the host: {process} + {lanes} lanes × pixels {pixels:.2f} {within}",
            ]
        if self.lanes < self.asked:
            lines.append(f"{self.lanes} lanes in place of {self.asked}: more do not fit, or would need smaller tiles")
        return lines


def fit_memory(
    requirements: Sequence[MemoryRequirement], asked: int, budget: MemoryBudget, halo: int, session: Session
) -> MemoryFit:
    """Choose lanes and tiles: the most lanes, up to `asked`, whose tiles cost hardly more than fewer lanes' would.

    A size that does not fit even alone is left out where others do fit: its micrographs will fail.

    Args:
        requirements: what micrographs of each size take; at least one.
        asked: lanes, on each GPU.
        budget: what may be used.
        halo: of the network, pixels.
        session: whose `memory` says what a window needs.

    Raises:
        HostError: not even one lane with the smallest tiles fits; names the memory that would do.
    """
    requirements = [each for each in requirements if _fits_alone(each, budget, halo, session)] or requirements
    fits: list[MemoryFit] = []
    for lanes in range(asked, 0, -1):
        try:
            tiles = tuple(
                fit_tile(each.size, memory_left(each, requirements, lanes, budget), halo, session)
                for each in requirements
            )
        except HostError:
            continue
        pairs = list(zip(requirements, tiles, strict=True))
        network = max(network_memory(each.size, tile, session) for each, tile in pairs)
        computed = sum(each.count * count_tiles(each.size, halo, tile) * tile[0] * tile[1] for each, tile in pairs)
        fits.append(MemoryFit(asked, lanes, budget, tuple(requirements), tiles, network, computed))
    if not fits:
        raise _too_little(requirements, budget, halo, session)
    least = min(fit.computed for fit in fits)
    return next(fit for fit in fits if fit.computed <= WORTH_A_LANE * least)


def fit_tile(size: tuple[int, int], memory: int, halo: int, session: Session) -> tuple[int, int]:
    """Return the tile in which an image of this size, with its network, fits so many bytes; see `choose_tile`."""
    return choose_tile(size, halo, memory, lambda tile: network_memory(size, tile, session))


def memory_left(
    requirement: MemoryRequirement, others: Sequence[MemoryRequirement], lanes: int, budget: MemoryBudget
) -> int:
    """Bytes left for image and network, for one size of micrographs, whichever sizes the other lanes have.

    Raises:
        HostError: the lanes' pixels alone do not fit the host.
    """
    host = host_memory(others, lanes, budget)
    if budget.device is None:
        return budget.host - host
    if host > budget.host:
        ny, nx = requirement.shape
        raise HostError(
            f"the host needs {host / _GB:.2f} GB for {lanes * budget.gpus} lanes of {ny}×{nx} pixels, "
            f"{budget.host / _GB:.2f} GB are allowed; allow more memory or run fewer lanes"
        )
    return budget.device // lanes - requirement.work


def host_memory(requirements: Sequence[MemoryRequirement], lanes: int, budget: MemoryBudget) -> int:
    """Bytes of host memory that process and lanes hold, without a network on the CPU."""
    on_host = max(each.pixels + (each.work if budget.device is None else 0) for each in requirements)
    return budget.process + lanes * budget.gpus * on_host


def _too_little(
    requirements: Sequence[MemoryRequirement], budget: MemoryBudget, halo: int, session: Session
) -> HostError:
    """What one lane with the smallest tiles needs for every size of micrographs, named as `--memory` takes it."""

    def least_network(each: MemoryRequirement) -> int:
        return least_requirement(each.size, halo, lambda tile: network_memory(each.size, tile, session))

    def on_host(each: MemoryRequirement) -> int:
        return host_memory([each], 1, budget) + (least_network(each) if budget.device is None else 0)

    largest = max(requirements, key=on_host)
    ny, nx = largest.shape
    if (host := on_host(largest)) > budget.host:
        enough = math.ceil(_MARGIN * host / _GB * 100) / 100
        return HostError(
            f"micrographs of {ny}×{nx} pixels need {enough:.2f} GB of host memory, with one lane and the smallest "
            f"tiles; {budget.host / _GB:.2f} GB are allowed: give --memory {enough:.2f}GB or "
            "more, if this machine has it"
        )
    needed = max(each.work + least_network(each) for each in requirements)
    return HostError(
        f"micrographs of {ny}×{nx} pixels need {needed / _GB:.2f} GB of GPU memory, with one lane and the smallest "
        f"tiles; {(budget.device or 0) / _GB:.2f} GB are free: end what else uses the GPU, or use "
        "another one or --device cpu"
    )


def _fits_alone(requirement: MemoryRequirement, budget: MemoryBudget, halo: int, session: Session) -> bool:
    try:
        fit_tile(requirement.size, memory_left(requirement, [requirement], 1, budget), halo, session)
    except HostError:
        return False
    return True
