"""`MemoryLimits`: the lanes and tiles that a denoiser may use, which may become fewer and smaller during a run."""

import sys
from collections.abc import Callable, Mapping

from n2n_deploy.denoiser.memory import MemoryBudget, MemoryRequirement, network_memory
from n2n_deploy.denoiser.memory_fit import MemoryFit, fit_memory, fit_tile, memory_left
from n2n_deploy.engines.session import Session

Requirement = Callable[..., MemoryRequirement]
"""`memory_requirement` for one device and recipe: called with shape (ny, nx), pixel size (Å), count and `halves`."""


class MemoryLimits:
    """What fits the memory, for one denoiser.

    Args:
        session: what runs the network.
        halo: of the network, pixels.
        budget: what may be used.
        lanes: how many were asked for.
        requirement: what a lane takes.

    Attributes:
        lanes: how many fit.
    """

    def __init__(self, session: Session, halo: int, budget: MemoryBudget, lanes: int, requirement: Requirement) -> None:
        self.lanes = self._asked = lanes
        self._session, self._halo, self._budget = session, halo, budget
        self._requirement = requirement
        self._requirements: tuple[MemoryRequirement, ...] = ()
        self._ceiling = sys.maxsize

    def tile(self, shape: tuple[int, int], pixel_size: float, *, halves: bool) -> tuple[int, int]:
        """Return the tiles of a micrograph; see `Denoiser.tile`."""
        own = self._requirement(shape, pixel_size, 1, halves=halves)
        left = memory_left(own, (*self._requirements, own), self.lanes, self._budget)
        return fit_tile(own.size, min(left, self._ceiling), self._halo, self._session)

    def fit(self, sizes: Mapping[tuple[tuple[int, int], float], int], *, halves: bool, gpus: int) -> MemoryFit:
        """Choose the lanes and tiles of a run; see `Denoiser.fit_to_memory`."""
        required = [self._requirement(*size, count, halves=halves) for size, count in sizes.items()]
        if not self._requirements:  # later the process holds what it took for earlier micrographs, and will use again
            self._budget = self._budget.at_start(gpus)
        fit = fit_memory(required, self._asked, self._budget, self._halo, self._session)
        self.lanes, self._requirements = fit.lanes, fit.requirements
        return fit

    def smaller_tile(self, size: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
        """Return tiles that take half of what these took, now and from now on: other processes took what was free.

        Raises:
            HostError: not even the smallest tile fits.
        """
        ceiling = network_memory(size, tile, self._session) // 2
        smaller = fit_tile(size, ceiling, self._halo, self._session)
        self._ceiling = ceiling
        return smaller
