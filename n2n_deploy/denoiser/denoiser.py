"""`Denoiser`: one micrograph as an array in, the denoised micrograph out. Everything above calls it."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import DTypeLike, NDArray

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.options import ComputeOptions, Precision
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoised import Denoised, averaged, notes
from n2n_deploy.denoiser.memory import memory_budget, memory_requirement
from n2n_deploy.denoiser.memory_fit import MemoryFit
from n2n_deploy.denoiser.memory_limits import MemoryLimits
from n2n_deploy.denoiser.saturation import clipping_note
from n2n_deploy.device.array_types import Array
from n2n_deploy.engines.averaging import VIEWS, run_averaged
from n2n_deploy.engines.select import choose_session
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tiling import count_tiles, run_tiled
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.output_grid import output_grid
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import Merge, check_merge, restore

_CLOSING_SECONDS = 2.0
_INVERTED = numpy.float32(-1)


class Denoiser(Closing):
    """Denoise micrographs with the model of a bundle: preprocess (S2.1), network (S2.2), restore (S2.3, S2.4).

    May be called from several threads at once: Fourier work runs side by side. On the CPU the network sees one image
    at a time, so that its activation memory exists once; on a GPU each thread has a stream and memory of its own.

    Args:
        bundle: an open bundle, the path of one, or "general" for the model that comes with the package.
        compute: device, engine, precision, threads and the keys to trust; `memory`, which the whole process may use at
            most (on exact tiles where the whole image does not fit: the result is the same); `lanes`, how many
            threads will call this concurrently (None: one).
        max_resolution: Å, for a bundle that takes a range of them; None for its own.
        phase_flip: for a bundle that takes flipped and unflipped phases; None flips those of micrographs with a CTF.
        invert: protein is white in the input. The network sees the contrast inverted, the output has the input's.
        merge: keep the noisy spectrum above this band (S2.4); by default the output ends at max_resolution.
        flip_back: undo the phase flip in the output, for programs that correct the CTF themselves.
        lowpass: Å; a further soft low-pass of the output.
        output_pixel_size: Å; Fourier-crop the output to coarser pixels, such as for a picker.
        tta: average the network over the eight flips and quarter turns of its input, at eight times the cost.
        session: an open session to use in place of choosing one; the caller closes it.
        choose_int8: whether int8 may be chosen if `compute` names no precision.

    Attributes:
        bundle: the model, with its recipe chosen.
        recipe: how its micrographs become network input.
        session: what runs the network.
        precision: in which it computes; None for a session of the caller's.
        rejected_engines: why each better engine was passed over; engine → reason.

    Raises:
        BundleError: the bundle is damaged, or its network gives other results here than when it was exported.
        HostError: no session works here, or the memory cannot hold even the smallest tile.
        UsageError: there is no such engine, it does not run on the device, several GPUs are named, or the network was
            not trained for this max_resolution or phase flip.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        *,
        compute: ComputeOptions | None = None,
        max_resolution: float | None = None,
        phase_flip: bool | None = None,
        invert: bool = False,
        merge: Merge | None = None,
        flip_back: bool = False,
        lowpass: float | None = None,
        output_pixel_size: float | None = None,
        tta: bool = False,
        session: Session | None = None,
        choose_int8: bool = True,
    ) -> None:
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.bundle = opened.with_recipe(max_resolution, phase_flip=phase_flip)
        self.recipe = self.bundle.recipe
        self._flips_with_ctf = phase_flip is None and opened.accepts is not None and opened.accepts.either_phase
        self.invert, self.merge, self.output_pixel_size, self.tta = invert, merge, output_pixel_size, tta
        self._restore = partial(
            restore, merge=merge, flip_back=flip_back, lowpass=lowpass, output_pixel_size=output_pixel_size
        )
        compute = compute or ComputeOptions()
        if len(compute.devices) > 1:
            raise UsageError(f"GPUs {compute.gpus}: a Denoiser runs on one GPU; open one for each, or call denoise()")
        self._owns_session = session is None
        self.rejected_engines: dict[str, str] = {}
        self.precision: Precision | None = None
        if session is None:
            # Also what is not used here: a bit that was lost in one member says that the copy or the disk is bad.
            self.bundle.verify_members()
            choice = choose_session(
                self.bundle,
                compute.devices[0],
                compute.threads,
                engine=compute.engine,
                precision=compute.precision,
                trusted_keys=compute.trusted_keys,
                choose_int8=choose_int8,
            )
            session, self.rejected_engines = choice.session, choice.rejected_engines
            self.precision = choice.precision
        self.session = session
        self._device = self.session.device
        required = partial(
            memory_requirement, self._device, self.recipe, merge=merge is not None, views=tta, inverted=invert
        )
        budget = memory_budget(self._device, compute.memory)
        self._limits = MemoryLimits(self.session, self.bundle.manifest.halo, budget, compute.lanes or 1, required)
        self._network = threading.Lock()

    @property
    def lanes(self) -> int:
        """How many threads may call this at once."""
        return self._limits.lanes

    def __call__(self, image: Array, optics: Optics, ctf: CTFParameters | None = None) -> NDArray[Any]:
        """Denoise one micrograph.

        Args:
            image: (ny, nx), any real dtype.
            optics: its optics group; voltage, Cs and amplitude contrast are needed where the recipe flips phases.
            ctf: its defocus; needed where the recipe flips phases.

        Returns:
            (ny, nx) float32 on the input's grey scale and, without `output_pixel_size`, its grid.

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
        device = self._device
        with device.lane():
            with self._timed(seconds, "preprocess"):
                keep, recipe = self.merge is not None, self._recipe(ctf)
                prepared = preprocess(device.to_device(image), optics, ctf, recipe, keep_spectrum=keep)
                if self.merge is not None:
                    check_merge(self.merge, prepared)
                parts = [prepared] if halves is None else [self._half(half, prepared) for half in halves]
            with self._timed(seconds, "network"):
                tile = self.tile(prepared.shape, optics.pixel_size, halves=halves is not None)
                outputs, tile, short = self._through_network(parts, tile)
                denoised = outputs[0] if halves is None else averaged(outputs, parts, prepared)
                device.synchronize()  # restore() has to wait next in any case; so the clock tells what each stage took
            with self._timed(seconds, "restore"):
                full = self._restore(denoised, prepared)
                each = [] if halves is None else [*(part.image for part in parts), *outputs]
                seen = (prepared.image, denoised, *each) if network_images else ()
                noisy, made, *kept = [device.to_host(image) for image in seen] or 2 * [numpy.empty((0, 0))]
                statistics = device.statistics(full)
                result = device.to_host(full, pinned=True)
        passes = len(parts) * (VIEWS if self.tta else 1)
        tiles = passes * count_tiles(prepared.image.shape, self.bundle.manifest.halo, tile)
        return Denoised(
            image=result,
            network_input=noisy,
            network_output=made,
            spacing=prepared.spacing,
            pixel_size=output_grid(prepared.shape, prepared.pixel_size, self.output_pixel_size).pixel_size,
            notes=notes(prepared, self.bundle.manifest.accepts) + short,
            tiles=tiles,
            seconds=seconds,
            grey_levels=(prepared.mean, prepared.std),
            halves=tuple(kept),
            statistics=statistics,
            illumination=prepared.pixels.illumination,
        )

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a host array to read a micrograph into: for a GPU in pinned memory, which saves a copy on the way."""
        return self._device.empty_host(shape, dtype)

    def tile(self, shape: tuple[int, int], pixel_size: float, *, halves: bool = False) -> tuple[int, int]:
        """Height and width in network pixels of the tiles that a micrograph of this shape is denoised in.

        Args:
            shape: (ny, nx) of the micrograph.
            pixel_size: Å.
            halves: its halves are in memory too.

        Raises:
            HostError: not even the smallest tile fits the memory.
        """
        return self._limits.tile(shape, pixel_size, halves=halves)

    def fit_to_memory(
        self, sizes: Mapping[tuple[tuple[int, int], float], int], *, halves: bool = False, gpus: int = 1
    ) -> MemoryFit:
        """Choose a run's lanes and tiles before its first micrograph: where memory is short, fewer lanes, or tiles.

        Args:
            sizes: how many micrographs there are of each shape (ny, nx) and pixel size (Å).
            halves: their halves are in memory too.
            gpus: how many GPUs this process feeds with as many lanes each, with a denoiser for each.

        Returns:
            What fits; `lanes` is its number from now on.

        Raises:
            HostError: not even one lane and the smallest tile fit.
        """
        return self._limits.fit(sizes, halves=halves, gpus=gpus)

    def network(self, image: Array, tile: tuple[int, int] | None = None) -> Array:
        """Pass an image (h, w), as `preprocess` makes it, through the network alone.

        In tiles of this height and width, as the method `tile` gives them; by default the whole image at once.
        """
        run = run_averaged if self.tta else run_tiled
        with nullcontext() if self._device.is_gpu else self._network:
            seen = image * _INVERTED if self.invert else image
            made = run(self.session, seen, self.bundle.manifest.halo, tile or (image.shape[0], image.shape[1]))
            return made * _INVERTED if self.invert else made

    def _through_network(
        self, parts: list[Prepared], tile: tuple[int, int]
    ) -> tuple[list[Array], tuple[int, int], tuple[str, ...]]:
        """The network's outputs, the tiles that they were made in, and a note where memory ran short."""
        int8 = self.bundle.manifest.int8 if self.precision == "int8" else None
        seen = (self._device.to_host(part.image) for part in parts)
        notes = clipping_note((image * _INVERTED if self.invert else image for image in seen), int8) if int8 else ()
        size: tuple[int, int] = tuple(parts[0].image.shape)
        while True:
            try:
                return [self.network(part.image, tile) for part in parts], tile, notes
            except MemoryError:
                smaller = self._limits.smaller_tile(size, tile)
                notes = (
                    *notes,
                    f"out of memory with tiles of {tile[0]}×{tile[1]} pixels; {smaller[0]}×{smaller[1]} were used",
                )
                tile = smaller

    def _recipe(self, ctf: CTFParameters | None) -> Recipe:
        """The recipe for a micrograph with this CTF."""
        return self.recipe.model_copy(update={"phase_flip": ctf is not None}) if self._flips_with_ctf else self.recipe

    def _half(self, half: Array, whole: Prepared) -> Prepared:
        if tuple(half.shape) != whole.shape:
            raise DataError(
                f"a half of {half.shape[0]}×{half.shape[1]} pixels does not belong to a sum of "
                f"{whole.shape[0]}×{whole.shape[1]}; check the names of the halves"
            )
        return preprocess(self._device.to_device(half), whole.optics, whole.ctf, whole.recipe)

    @contextmanager
    def _timed(self, seconds: dict[str, float], stage: str) -> Iterator[None]:
        """Note how long a stage takes, and mark it for profilers."""
        start = time.perf_counter()
        with self._device.stage(stage):
            yield
        seconds[stage] = time.perf_counter() - start

    def close(self) -> None:
        """Free the network, unless the session was the caller's or another thread is still using it."""
        # After an interrupt lanes may be in the middle of an image; freeing what they run on would crash them.
        if self._owns_session and self._network.acquire(timeout=_CLOSING_SECONDS):
            self.session.close()
            self._network.release()
