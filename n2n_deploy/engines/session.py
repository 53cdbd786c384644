"""`Session`: one network, loaded and ready. Everything that runs a network on some hardware implements it."""

from typing import Protocol, Self

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.device import Device


class Session(Protocol):
    """Arrays through a network.

    Attributes:
        name: what runs it, for people and logs ("onnxruntime-cpu", "tensorrt", …).
    """

    name: str

    @property
    def device(self) -> Device:
        """Where the arrays live that `run` takes and returns."""
        ...

    def run(self, batch: Array) -> Array:
        """Denoise a batch: (n, 1, height, width) float32, normalised, sides multiples of 8; same shape back."""
        ...

    def memory(self, shape: tuple[int, int]) -> int:
        """Peak bytes that `run` needs beyond its input for one image of `shape` (height, width)."""
        ...

    def close(self) -> None:
        """Free the network. A closed session cannot run again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
