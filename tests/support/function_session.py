"""A session made of a function of one image: a denoiser whose behaviour is known, without a network."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.host import HOST

Image = NDArray[np.float32]


class FunctionSession:
    """Applies a function to every image of a batch."""

    name, device = "function", HOST

    def __init__(self, function: Callable[[Image], Image]) -> None:
        self.function = function

    def run(self, batch: Image) -> Image:
        return np.stack([[self.function(image) for image in channels] for channels in batch]).astype(np.float32)

    def memory(self, shape: tuple[int, int]) -> int:
        return 8 * shape[0] * shape[1]

    def close(self) -> None:
        """There is nothing to free."""
