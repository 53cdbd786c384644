"""Memory planned ahead: how many lanes, and which tiles, fit what the machine has, before the first micrograph.

On the CPU all lanes share one network and the host's memory: process + lanes × (pixels + Fourier work) + network.
On a GPU each lane has a network of its own there, GPU: lanes × (Fourier work + network), and the host keeps what goes
to and fro, host: process + lanes of all GPUs × pixels. Where that is too much there are fewer lanes, or tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from n2n_deploy.core.errors import HostError
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tiling import count_tiles, plan_tiles, tile_memory

WORTH_A_LANE = 1.1
"""Times the network's least work that one more lane may cost in halos: it hides reading and writing behind them."""

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Need:
    """What a lane takes for the micrographs of one size, beside the network.

    Attributes:
        shape: (ny, nx) of the micrographs.
        pixel_size: Å.
        count: how many there are.
        size: (height, width) of the network's image.
        pixels: bytes on the host: the micrograph as read, and from a GPU its result and what the network saw and made.
        work: bytes of Fourier work, where the network runs.
    """

    shape: tuple[int, int]
    pixel_size: float
    count: int
    size: tuple[int, int]
    pixels: int
    work: int


@dataclass(frozen=True, slots=True)
class Supply:
    """What may be used.

    Attributes:
        host: bytes of host memory for this process, all together.
        process: bytes of them that it holds before the first micrograph.
        device: bytes free on each GPU; None on the CPU.
        gpus: how many GPUs this process feeds, with as many lanes each.
    """

    host: int
    process: int
    device: int | None = None
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Lanes and tiles that fit.

    Attributes:
        asked: lanes that were asked for, on each GPU.
        lanes: lanes that fit, on each GPU.
        supply: what may be used.
        needs: what is to be done.
        tiles: (height, width) of the network's tiles for each need.
        network: bytes that the network takes at most: once on the CPU, for each lane on a GPU.
        computed: pixels that the network computes for all micrographs, halos included.
    """

    asked: int
    lanes: int
    supply: Supply
    needs: tuple[Need, ...]
    tiles: tuple[tuple[int, int], ...]
    network: int
    computed: int

    @property
    def host(self) -> int:
        """Bytes of host memory that the process will hold at the peak."""
        return host_memory(self.needs, self.lanes, self.supply) + (self.network if self.supply.device is None else 0)

    @property
    def device(self) -> int:
        """Bytes that the lanes of one GPU will hold there; 0 on the CPU."""
        if self.supply.device is None:
            return 0
        return self.lanes * (max(need.work for need in self.needs) + self.network)

    def lines(self) -> list[str]:
        """Say it to people, a line for each kind of memory and one for lanes that do not fit."""
        supply, lanes = self.supply, self.lanes * self.supply.gpus
        pixels, work = (max(getattr(need, name) for need in self.needs) / _GB for name in ("pixels", "work"))
        network = f"network {self.network / _GB:.2f}"
        process = f"process {supply.process / _GB:.2f}"
        within = f"= {self.host / _GB:.2f} of {supply.host / _GB:.2f} GB"
        if supply.device is None:
            lines = [f"memory: {process} + {lanes} lanes × (pixels {pixels:.2f} + FFT {work:.2f}) + {network} {within}"]
        else:
            lines = [
                f"memory of each GPU: {self.lanes} lanes × (FFT {work:.2f} + {network}) = {self.device / _GB:.2f} of "
                f"{supply.device / _GB:.2f} GB",
                f"memory of the host: {process} + {lanes} lanes × pixels {pixels:.2f} {within}",
            ]
        if self.lanes < self.asked:
            lines.append(f"{self.lanes} lanes in place of {self.asked}: more do not fit, or would cost more in tiles")
        return lines


def plan_memory(needs: Sequence[Need], asked: int, supply: Supply, halo: int, session: Session) -> MemoryPlan:
    """Choose lanes and tiles: the most lanes, up to `asked`, whose tiles cost hardly more than fewer lanes' would.

    A size that does not fit even alone is left out, where others do: it is for its micrographs to fail.

    Args:
        needs: what is to be done; at least one.
        asked: lanes, on each GPU.
        supply: what may be used.
        halo: of the network, pixels.
        session: whose `memory` says what a window needs.

    Raises:
        HostError: not even one lane with the smallest tiles fits; says what it needs.
    """
    needs = [need for need in needs if _fits_alone(need, supply, halo, session)] or needs
    plans: list[MemoryPlan] = []
    problem: HostError | None = None
    for lanes in range(asked, 0, -1):
        try:
            tiles = tuple(
                plan_tiles(need.size, halo, network_memory(need, needs, lanes, supply), session) for need in needs
            )
        except HostError as error:
            problem = error
            continue
        network = max(tile_memory(need.size, tile, session) for need, tile in zip(needs, tiles, strict=True))
        computed = sum(
            need.count * count_tiles(need.size, halo, tile) * tile[0] * tile[1]
            for need, tile in zip(needs, tiles, strict=True)
        )
        plans.append(MemoryPlan(asked, lanes, supply, tuple(needs), tiles, network, computed))
    if not plans:
        assert problem is not None
        raise problem
    least = min(plan.computed for plan in plans)
    return next(plan for plan in plans if plan.computed <= WORTH_A_LANE * least)


def network_memory(need: Need, all_needs: Sequence[Need], lanes: int, supply: Supply) -> int:
    """Bytes left for image and network, for one size of micrographs, whichever of all sizes other lanes have in hand.

    Raises:
        HostError: the lanes' pixels alone do not fit the host.
    """
    host = host_memory(all_needs, lanes, supply)
    if supply.device is None:
        return supply.host - host
    if host > supply.host:
        raise HostError(
            f"the host needs {host / _GB:.2f} GB for {lanes * supply.gpus} lanes of {need.shape[0]}×{need.shape[1]} "
            f"pixels, {supply.host / _GB:.2f} GB are allowed; allow more memory or run fewer lanes"
        )
    return supply.device // lanes - need.work


def _fits_alone(need: Need, supply: Supply, halo: int, session: Session) -> bool:
    try:
        plan_tiles(need.size, halo, network_memory(need, [need], 1, supply), session)
    except HostError:
        return False
    return True


def host_memory(needs: Sequence[Need], lanes: int, supply: Supply) -> int:
    """Bytes of host memory that process and lanes hold, without a network on the CPU."""
    on_host = max(need.pixels + (need.work if supply.device is None else 0) for need in needs)
    return supply.process + lanes * supply.gpus * on_host
