"""Tiles against the whole image: networks of known reach, and the real U-Net through ONNX Runtime."""

import itertools
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.host import HOST
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.tiling import choose_tile, count_tiles, run_tiled, windows
from n2n_deploy.export.onnx_graph import to_onnx
from n2n_deploy.train.receptive_field import receptive_field
from n2n_deploy.train.wide import WideNetwork

Image = NDArray[np.float32]


class Analytic:
    """A session over a function of one image whose reach is known; notes the shapes that it was given."""

    name = "analytic"
    device = HOST

    def __init__(self, function: Any = None, bytes_per_pixel: float = 100.0) -> None:
        self.function = function
        self.bytes_per_pixel = bytes_per_pixel
        self.shapes: list[tuple[int, int]] = []

    def run(self, batch: Image) -> Image:
        self.shapes.append(batch.shape[2:])
        result: Image = self.function(batch[0, 0].astype(np.float64))[None, None].astype(np.float32)
        return result

    def memory(self, shape: tuple[int, int]) -> int:
        return int(self.bytes_per_pixel * shape[0] * shape[1]) + 1000

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def two_boxes(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two box means of 17 pixels with zero padding and a bias between them: reach 16, and edges matter."""
    inner = ndimage.uniform_filter(image, 17, mode="constant") + 1.0
    return ndimage.uniform_filter(np.maximum(inner, 0), 17, mode="constant")


def blocks(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 8×8 blocks counted from the corner: as a network of stride 8, exact only on its grid."""
    height, width = image.shape
    means = image.reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3))
    return means.repeat(8, 0).repeat(8, 1)


def noise(*shape: int) -> Image:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("tile", [(48, 40), (56, 200), (168, 64), (160, 192), (40, 48)])
def test_tiles_with_the_networks_reach_as_halo_are_exact(tile: tuple[int, int]) -> None:
    image = noise(168, 200)
    whole = two_boxes(image.astype(np.float64))
    np.testing.assert_allclose(run_tiled(Analytic(two_boxes), image, 16, tile), whole, atol=1e-5 * whole.std())


def test_a_halo_short_of_the_reach_is_seen() -> None:
    image = noise(168, 200)
    whole = two_boxes(image.astype(np.float64))
    assert np.abs(run_tiled(Analytic(two_boxes), image, 8, (64, 64)) - whole).max() > 1e-3 * whole.std()


@pytest.mark.parametrize("tile", [(24, 48), (40, 40), (72, 8)])
def test_windows_keep_the_grid_of_the_network(tile: tuple[int, int]) -> None:
    image = noise(104, 88)
    tiled = run_tiled(Analytic(blocks), image, 0, tile)
    np.testing.assert_allclose(tiled, blocks(image.astype(np.float64)), atol=1e-6)


def test_all_windows_have_one_shape() -> None:
    session = Analytic(two_boxes)
    run_tiled(session, noise(168, 200), 16, (56, 64))
    assert set(session.shapes) == {(56, 64)}
    assert len(session.shapes) == count_tiles((168, 200), 16, (56, 64))


@pytest.mark.parametrize("halo", [0, 8, 24])
def test_every_pixel_is_decided_once_and_a_halo_away_from_inner_edges(halo: int) -> None:
    for length, tile in itertools.product(range(8, 240, 8), range(2 * halo + 8, 248, 8)):
        cut = windows(length, halo, tile)
        assert [pixel for window in cut for pixel in range(window.first, window.last)] == list(range(length))
        for window in cut:
            assert window.start % 8 == 0
            assert window.stop - window.start == min(tile, length)
            assert window.start == 0 or window.first - window.start >= halo
            assert window.stop == length or window.stop - window.last >= halo


def test_lengths_off_the_grid_and_tiles_that_are_all_halo_are_refused() -> None:
    for length, halo, tile in [(100, 8, 64), (104, 4, 64), (104, 8, 60)]:
        with pytest.raises(UsageError, match="multiples of 8"):
            windows(length, halo, tile)
    with pytest.raises(UsageError, match="halo"):
        windows(104, 16, 32)


@pytest.mark.parametrize(("preset_kernel", "shape", "tile"), [(4, (392, 360), (352, 336)), (3, (296, 328), (232, 328))])
def test_the_u_net_in_tiles_equals_the_whole_image(
    preset_kernel: int, shape: tuple[int, int], tile: tuple[int, int]
) -> None:
    torch.manual_seed(1)
    network = WideNetwork(8, preset_kernel)
    with torch.no_grad():  # biases make the zero padding around the image differ from what lies inside it
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    halo = receptive_field(network)
    image = noise(*shape)
    with OnnxRuntimeSession(to_onnx(network).SerializeToString(), threads=1) as session:
        whole = session.run(image[None, None])[0, 0]
        tiled = run_tiled(session, image, halo, tile)
    assert count_tiles(shape, halo, tile) > 1
    assert whole.std() > 0.01
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * whole.std())


def need(session: Analytic, shape: tuple[int, int], tile: tuple[int, int]) -> int:
    """Image, result, the window's input and output (where there are several), and the network."""
    arrays = 8 * shape[0] * shape[1] + (0 if tile == shape else 8 * tile[0] * tile[1])
    return arrays + session.memory(tile)


@pytest.mark.parametrize("memory", [10**7, 3_000_000, 1_500_000, 1_000_000, 600_000])
def test_the_tile_fits_and_no_other_that_fits_computes_less(memory: int) -> None:
    session, shape, halo = Analytic(), (160, 216), 16
    tile = choose_tile(shape, halo, memory, lambda tile: need(session, shape, tile))
    assert need(session, shape, tile) <= memory

    def cost(tile: tuple[int, int]) -> int:
        return count_tiles(shape, halo, tile) * tile[0] * tile[1]

    everything = itertools.product(range(2 * halo + 8, shape[0] + 1, 8), range(2 * halo + 8, shape[1] + 1, 8))
    assert cost(tile) == min(cost(other) for other in everything if need(session, shape, other) <= memory)


def test_the_whole_image_is_one_tile_where_it_fits() -> None:
    assert choose_tile((160, 216), 16, 10**8, Analytic().memory) == (160, 216)
    assert count_tiles((160, 216), 16, (160, 216)) == 1


def test_an_image_smaller_than_its_halos_is_one_tile() -> None:
    assert choose_tile((64, 56), 104, 10**8, Analytic().memory) == (64, 56)


def test_too_little_memory_names_what_is_needed() -> None:
    session, shape, halo = Analytic(bytes_per_pixel=5000), (160, 216), 16
    least = need(session, shape, (40, 40))
    with pytest.raises(HostError, match=f"{least / 1e6:.0f} MB"):
        choose_tile(shape, halo, least - 1, lambda tile: need(session, shape, tile))
    assert choose_tile(shape, halo, least, lambda tile: need(session, shape, tile)) == (40, 40)
