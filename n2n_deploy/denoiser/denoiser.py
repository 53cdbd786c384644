"""`Denoiser`: one micrograph as an array in, the denoised micrograph out. Everything above calls it."""

import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from numpy.typing import DTypeLike

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Precision
from n2n_deploy.core.errors import DataError
from n2n_deploy.denoiser.denoised import Denoised, averaged, notes
from n2n_deploy.denoiser.memory_plan import MemoryPlan, Need, network_memory, plan_memory
from n2n_deploy.denoiser.place import place_of
from n2n_deploy.engines.averaging import VIEWS, run_averaged
from n2n_deploy.engines.select import choose_session
from n2n_deploy.engines.session import Array, Closing, Session
from n2n_deploy.engines.tiling import count_tiles, plan_tiles, run_tiled, tile_memory
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.fourier import network_shape
from n2n_deploy.imaging.preprocess import Prepared, preprocess, working_memory
from n2n_deploy.imaging.restore import Merge, check_merge, restore

_CLOSING_SECONDS = 2.0


class Denoiser(Closing):
    """Denoise micrographs with the model of a bundle: preprocess (S2.1), network (S2.2), restore (S2.3, S2.4).

    May be called from several threads at once: Fourier work runs side by side. On the CPU the network sees one image
    at a time, so that its activation memory exists once; on a GPU each thread has a stream and memory of its own.

    Args:
        bundle: an open bundle, or the path of one.
        device: "auto", "cpu", "gpu" or "cuda:N"; see `open_session`.
        memory: bytes of host memory that the whole process may use at most; by default a share of what is free now.
            Of a GPU's memory a share of what is free there is used. The network runs on the whole image where that
            fits, otherwise on exact tiles: the result is the same.
        threads: CPU threads of the network; by default all cores this process may use.
        merge: keep the noisy spectrum above this band (S2.4); by default the output ends at max_resolution.
        flip_back: undo the phase flip in the output, for programs that correct the CTF themselves.
        lowpass: Å; a further soft low-pass of the output.
        augment: average the network over the eight flips and quarter turns of its input, at eight times the cost.
        lanes: how many threads will call this at once; their Fourier work is taken off the memory the network gets.
        engine: name of the one engine to use, such as "tensorrt"; by default the best that works.
        precision: of the network: "fp32", "fp16" or "bf16"; by default the engine's.
        trusted_keys: file or folder of public keys, one of which must have signed the bundle.
        session: an open session to use in place of choosing one; it stays the caller's to close.

    Attributes:
        bundle: the model.
        recipe: how its micrographs become network input.
        session: what runs the network.
        rejected_engines: why each better engine was passed over; engine → reason.
        lanes: how many threads may call this at once.

    Raises:
        BundleError: the bundle is damaged or its network does not do here what it did when it was made.
        HostError: no session works here, or the memory cannot hold even the smallest tile.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        *,
        device: str = "auto",
        memory: int | None = None,
        threads: int | None = None,
        merge: Merge | None = None,
        flip_back: bool = False,
        lowpass: float | None = None,
        augment: bool = False,
        lanes: int = 1,
        engine: str | None = None,
        precision: Precision | None = None,
        trusted_keys: Path | None = None,
        session: Session | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        self.recipe = self.bundle.recipe
        self.merge = merge
        self.flip_back = flip_back
        self.lowpass = lowpass
        self.augment = augment
        self._asked = self.lanes = lanes
        self._owns_session = session is None
        self.rejected_engines: dict[str, str] = {}
        if session is None:
            # Also what is not used here: a bit that was lost in one member says that the copy or the disk is bad.
            self.bundle.verify_members()
            choice = choose_session(
                self.bundle, device, threads, engine=engine, precision=precision, trusted_keys=trusted_keys
            )
            session, self.rejected_engines = choice.session, choice.rejected_engines
        self.session = session
        self._place = place_of(self.session, memory)
        self._supply = self._place.supply()
        self._needs: tuple[Need, ...] = ()
        self._network = threading.Lock()
        self._ceiling = sys.maxsize

    def __call__(self, image: Array, optics: Optics, ctf: CTFParameters | None = None) -> Array:
        """Denoise one micrograph.

        Args:
            image: (ny, nx), any real dtype.
            optics: its optics group; voltage, Cs and amplitude contrast are needed where the recipe flips phases.
            ctf: its defocus; needed where the recipe flips phases.

        Returns:
            (ny, nx) float32 on the input's grey scale.

        Raises:
            DataError: the image has no signal, too many bad pixels, or lacks what phase flipping needs.
        """
        return self.denoise(image, optics, ctf).image

    def denoise(
        self,
        image: Array,
        optics: Optics,
        ctf: CTFParameters | None = None,
        *,
        halves: tuple[Array, Array] | None = None,
        network_images: bool = True,
    ) -> Denoised:
        """As calling the denoiser, with the account of what was repaired and how long each stage took.

        Args:
            image: (ny, nx), any real dtype.
            optics: its optics group.
            ctf: its defocus.
            halves: even and odd sums of its frames, of the same shape. The network then denoises each of them, at
                the noise level it was trained at, and the result is their average on the image's grey scale.
            network_images: return what the network saw and made, too; without, that need not come from the GPU.

        Raises:
            DataError: as for calling the denoiser; or a half has another shape than the image.
        """
        seconds: dict[str, float] = {}
        with self._place.lane():
            with _timed(seconds, "preprocess"):
                prepared = preprocess(
                    self._place.bring(image), optics, ctf, self.recipe, keep_spectrum=self.merge is not None
                )
                if self.merge is not None:
                    check_merge(self.merge, prepared)
                parts = [prepared] if halves is None else [self._half(half, prepared) for half in halves]
            with _timed(seconds, "network"):
                tile = self.tile(prepared.shape, optics.pixel_size, halves=halves is not None)
                outputs, tile, short = self._through_network(parts, tile)
                denoised = outputs[0] if halves is None else averaged(outputs, parts, prepared)
                self._place.wait()
            with _timed(seconds, "restore"):
                full = restore(denoised, prepared, merge=self.merge, flip_back=self.flip_back, lowpass=self.lowpass)
                each = [] if halves is None else [*(part.image for part in parts), *outputs]
                shown = map(self._place.take_small, (prepared.image, denoised, *each))
                noisy, made, *each = shown if network_images else (None, None)
                statistics = self._place.statistics(full)
                full = self._place.take(full)
        passes = len(parts) * (VIEWS if self.augment else 1)
        tiles = passes * count_tiles(prepared.image.shape, self.bundle.manifest.halo, tile)
        grey, said = (prepared.mean, prepared.std), notes(prepared) + short
        return Denoised(
            full,
            noisy,
            made,
            prepared.spacing,
            said,
            tiles,
            seconds,
            grey,
            tuple(each),
            statistics,
            prepared.pixels.illumination,
        )

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a host array to read a micrograph into: for a GPU in pinned memory, which saves a copy on the way."""
        return self._place.empty(shape, dtype)

    def tile(self, shape: tuple[int, int], pixel_size: float, *, halves: bool = False) -> tuple[int, int]:
        """Height and width in network pixels of the tiles that a micrograph of this shape is denoised in.

        Args:
            shape: (ny, nx) of the micrograph.
            pixel_size: Å.
            halves: its halves are in memory too.

        Raises:
            HostError: not even the smallest tile fits the memory.
        """
        need = self._need(shape, pixel_size, 1, halves=halves)
        left = network_memory(need, (*self._needs, need), self.lanes, self._supply)
        return plan_tiles(need.size, self.bundle.manifest.halo, min(left, self._ceiling), self.session)

    def plan(
        self, sizes: Mapping[tuple[tuple[int, int], float], int], *, halves: bool = False, gpus: int = 1
    ) -> MemoryPlan:
        """Plan a run's memory before its first micrograph, and keep to it: where it is short, fewer lanes, or tiles.

        Args:
            sizes: how many micrographs there are of each shape (ny, nx) and pixel size (Å).
            halves: their halves are in memory too.
            gpus: how many GPUs this process feeds with as many lanes each, with a denoiser for each.

        Returns:
            The plan; `lanes` is its number from now on.

        Raises:
            HostError: not even one lane and the smallest tile fit.
        """
        needs = [self._need(*size, count, halves=halves) for size, count in sizes.items()]
        if not self._needs:  # later the process holds what it took for earlier micrographs, and will use again
            self._supply = self._place.supply(gpus)
        plan = plan_memory(needs, self._asked, self._supply, self.bundle.manifest.halo, self.session)
        self.lanes, self._needs = plan.lanes, plan.needs
        return plan

    def network(self, image: Array, tile: tuple[int, int] | None = None) -> Array:
        """Pass a preprocessed (h, w) image, mean 0 and std 1, through the network alone.

        Args:
            image: as `preprocess` makes it.
            tile: height and width of the tiles, as the method `tile` gives them; by default the whole image at once.
        """
        run = run_averaged if self.augment else run_tiled
        with nullcontext() if self._place.parallel_networks else self._network:
            return run(self.session, image, self.bundle.manifest.halo, tile or image.shape)

    def _through_network(
        self, parts: list[Prepared], tile: tuple[int, int]
    ) -> tuple[list[Array], tuple[int, int], tuple[str, ...]]:
        """The network's outputs, the tiles that they were made in, and a note where memory ran short.

        What is free when a run begins may be taken by others later: from then on half of it has to do.
        """
        notes: tuple[str, ...] = ()
        shape = tuple(parts[0].image.shape)
        while True:
            try:
                return [self.network(part.image, tile) for part in parts], tile, notes
            except MemoryError:
                ceiling = tile_memory(shape, tile, self.session) // 2
                smaller = plan_tiles(shape, self.bundle.manifest.halo, ceiling, self.session)
                notes = (f"memory ran short for tiles of {tile[0]}×{tile[1]} pixels; {smaller[0]}×{smaller[1]} did",)
                tile, self._ceiling = smaller, ceiling

    def _need(self, shape: tuple[int, int], pixel_size: float, count: int, *, halves: bool) -> Need:
        """What a lane takes for micrographs of one size."""
        size = network_shape(shape, pixel_size, self.recipe.max_resolution)
        pixels = self._place.pixels(shape, size)
        work = working_memory(shape, pixel_size, self.recipe, merge=self.merge is not None)
        work += self._place.transfer(shape)
        if halves:
            # As read, and what is handed on for the report to measure: four images, and float64 copies for the sums.
            pixels += 2 * self._place.image_bytes(shape) + (4 * 4 + 2 * 4 * 8) * math.prod(size)
            work += 4 * (math.prod(shape) + 4 * math.prod(size))
        if self.augment:
            work += 3 * 4 * math.prod(size)
        return Need(shape, pixel_size, count, size, pixels, work)

    def _half(self, half: Array, whole: Prepared) -> Prepared:
        if tuple(half.shape) != whole.shape:
            raise DataError(
                f"a half of {half.shape[0]}×{half.shape[1]} pixels does not belong to a sum of "
                f"{whole.shape[0]}×{whole.shape[1]}; check the names of the halves"
            )
        return preprocess(self._place.bring(half), whole.optics, whole.ctf, self.recipe)

    def close(self) -> None:
        """Free the network, unless the session was the caller's or another thread is still using it."""
        # After an interrupt lanes may be in the middle of an image; freeing what they run on would crash them.
        if self._owns_session and self._network.acquire(timeout=_CLOSING_SECONDS):
            self.session.close()
            self._network.release()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
