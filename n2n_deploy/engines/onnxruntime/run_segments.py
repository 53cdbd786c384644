"""`SegmentedSession`: the network on the CPU, segment after segment in tiles that fit the caches.

`n2n-deploy export` cuts the network into a chain of small models (see `n2n_deploy.export.segments`). Each runs over
the whole image tile by tile, many tiles at once, one thread each, before the next begins. A tile sees a few pixels
beyond itself, clamped to the image, so the result equals the whole image's; between segments only narrow feature maps
are kept.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import BundleError, HostError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.host import HOST
from n2n_deploy.engines.onnxruntime.library import (
    first_line,
    import_onnxruntime,
    is_memory_error,
    open_model,
    thread_count,
    too_large,
)

METADATA = "n2n_segment"
"""Key of a segment's facts, as JSON, in its model's metadata."""

TILE_BYTES = 16 * 2**20
"""Inputs and output of a tile's most demanding node. Larger tiles leave the caches, smaller ones are mostly halo."""

_SMALLEST_TILE = 8
_ARENA = 3.0  # memory that ONNX Runtime holds, in units of TILE_BYTES a thread; at most 2 was measured
_FIXED = 64 * 2**20

Tensor = NDArray[np.float32]


class SegmentFacts(BaseModel):
    """How a segment runs in tiles. Its cells are the pixels of its coarsest tensor.

    Attributes:
        level: how often the image has been halved where the segment's cells lie.
        levels: the same for each input and output; a tensor has 2^(level − levels[name]) pixels a cell on each axis.
        halo: cells that a tile must see beyond itself on each side to be exact.
        bytes_per_cell: of the inputs and output of the segment's most demanding node.
    """

    level: int
    levels: dict[str, int]
    halo: int
    bytes_per_cell: int


@dataclass(frozen=True)
class _Segment:
    """A segment's model, loaded; its tensors' levels and channels, and the side of its tiles in cells."""

    run: Any
    inputs: dict[str, int]
    outputs: dict[str, int]
    channels: dict[str, int]
    level: int
    halo: int
    tile: int


class SegmentedSession(Closing):
    """A network on the CPU, in cache-sized tiles; see `Session`.

    Args:
        models: bytes of the segments' ONNX models, in order.
        threads: tiles computed at once, by default one for each core that this process may use.
        tile_bytes: size of a tile, see `TILE_BYTES`.

    Raises:
        HostError: ONNX Runtime is not installed.
        OutOfMemoryError: there is not enough memory.
        BundleError: a model cannot be loaded, or is not a segment.
    """

    name = "onnxruntime-cpu"
    device = HOST

    def __init__(self, models: Sequence[bytes], threads: int | None = None, tile_bytes: int = TILE_BYTES) -> None:
        self.threads = thread_count(threads)
        self._tile_bytes = tile_bytes
        self._segments = [_load(model, tile_bytes) for model in models]
        last_reader = {name: index for index, segment in enumerate(self._segments) for name in segment.inputs}
        self._finished = [
            [name for name, last in last_reader.items() if last == index] for index in range(len(self._segments))
        ]
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="segments")

    def run(self, batch: Array) -> Tensor:
        """Denoise (n, 1, height, width) float32, sides multiples of 8; same shape back.

        Raises:
            OutOfMemoryError: there is not enough memory.
            HostError: the session is closed.
            BundleError: ONNX Runtime cannot run the model on this shape.
        """
        if not self._segments:
            raise HostError("the session is closed; open another")
        try:
            return np.concatenate([self._image(image[None]) for image in HOST.to_host(batch)])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            if is_memory_error(error):
                raise too_large(batch.shape, self.memory((batch.shape[-2], batch.shape[-1]))) from error
            raise BundleError(f"ONNX Runtime cannot run the model on {batch.shape}: {first_line(error)}") from error

    def memory(self, shape: tuple[int, int]) -> int:
        """Peak bytes that `run` needs beyond its input for one image (height, width); an upper bound."""
        alive: dict[str, int] = {}
        peak = 0
        for index, segment in enumerate(self._segments):
            for name, level in segment.outputs.items():
                alive[name] = 4 * segment.channels[name] * (shape[0] >> level) * (shape[1] >> level)
            peak = max(peak, sum(alive.values()))
            for name in self._finished[index]:
                alive.pop(name, None)
        working = _ARENA * self.threads * self._tile_bytes
        return int(peak + working) + _FIXED

    def close(self) -> None:
        """Free the network; the process keeps the memory of the tiles for the next session."""
        self._segments = []
        self._pool.shutdown()

    def _image(self, image: Tensor) -> Tensor:
        """Run one image (1, 1, height, width) through all segments."""
        tensors = {next(iter(self._segments[0].inputs)): image}
        for index, segment in enumerate(self._segments):
            tensors |= self._through(segment, tensors)
            for name in self._finished[index]:
                del tensors[name]
        (output,) = tensors.values()
        return output

    def _through(self, segment: _Segment, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run all tiles of a segment."""
        name, level = next(iter(segment.inputs.items()))
        cells = tuple(length >> (segment.level - level) for length in tensors[name].shape[-2:])
        results = {
            name: np.empty(
                (1, segment.channels[name], *(length << (segment.level - level) for length in cells)), np.float32
            )
            for name, level in segment.outputs.items()
        }

        def compute(tile: tuple[tuple[int, int], tuple[int, int]]) -> None:
            window = [
                (max(first - segment.halo, 0), min(last + segment.halo, length))
                for (first, last), length in zip(tile, cells, strict=True)
            ]
            inside = [(first - start, last - start) for (first, last), (start, _) in zip(tile, window, strict=True)]
            feeds = {
                name: np.ascontiguousarray(tensors[name][_pixels(window, segment.level - level)])
                for name, level in segment.inputs.items()
            }
            outputs = segment.run.run(list(segment.outputs), feeds)
            for (name, level), output in zip(segment.outputs.items(), outputs, strict=True):
                scale = segment.level - level
                results[name][_pixels(tile, scale)] = output[_pixels(inside, scale)]

        tiles = [(y, x) for y in _cut(cells[0], segment.tile) for x in _cut(cells[1], segment.tile)]
        for _ in self._pool.map(compute, tiles):
            pass
        return results


def _pixels(cells: Sequence[tuple[int, int]], scale: int) -> tuple[Any, ...]:
    """Index of the pixels of a block of cells in a tensor with 2^scale pixels a cell."""
    return (..., *(slice(first << scale, last << scale) for first, last in cells))


def _cut(length: int, tile: int) -> list[tuple[int, int]]:
    """An axis in the fewest near-equal pieces of at most `tile` cells."""
    count = -(-length // tile)
    return [(length * index // count, length * (index + 1) // count) for index in range(count)]


@functools.cache
def _share_arena() -> None:
    """One arena for all segments of this process: only one segment of a network works at a time."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, None)


def _load(model: bytes, tile_bytes: int) -> _Segment:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Tiles run in parallel: threads inside an operator would only wait for each other.
    options.intra_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = open_model(onnxruntime, model, options, providers=["CPUExecutionProvider"])
    try:
        facts = SegmentFacts.model_validate_json(session.get_modelmeta().custom_metadata_map[METADATA])
        inputs = {value.name: facts.levels[value.name] for value in session.get_inputs()}
        outputs = {value.name: facts.levels[value.name] for value in session.get_outputs()}
    except (KeyError, ValidationError) as error:
        raise BundleError(
            f"a model of the network lacks its facts as a segment ({first_line(error)}); export the model again"
        ) from error
    channels = {value.name: value.shape[1] for value in (*session.get_inputs(), *session.get_outputs())}
    side = int((tile_bytes / facts.bytes_per_cell) ** 0.5) - 2 * facts.halo
    return _Segment(session, inputs, outputs, channels, facts.level, facts.halo, max(side, _SMALLEST_TILE))
