"""`TritonPythonModel`: denoises in NVIDIA Triton's Python backend, with the network that the server itself runs.

The network is a model of its own in the same repository, called by Triton's business logic scripting. An ensemble would
have to compute twice, or send through the server, what restoring a micrograph needs from before the network, such as
its defects. Here it stays in this process; and a micrograph that is too large for the GPU's memory goes through the
network in exact tiles.
"""

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError, N2NError, OutOfMemoryError
from n2n_deploy.core.options import Precision
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST
from n2n_deploy.engines.onnxruntime.library import is_memory_error
from n2n_deploy.engines.select import verify
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.restore import Merge

_COPIES = 4
"""Of an image on the host: here, in the backend's shared memory, in the server, and in what it copies from or to."""


class TritonPythonModel:
    """What Triton's Python backend loads; its methods are the backend's.

    The first request sends the golden vectors through the server's network: like every node, a server that computes
    something else than PyTorch did at export denoises nothing.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle that lies beside model.py.

        Args:
            args: of the backend: folder and version of the model, and its configuration as JSON.
        """
        version = args["model_version"]
        folder = Path(args["model_repository"]) / version
        given = json.loads(args["model_config"]).get("parameters", {})
        parameters = {key: value["string_value"] for key, value in given.items()}
        self._session = ServerSession(parameters["network"], int(version))
        self._precision = cast(Precision, parameters["precision"])
        self._denoiser = _open(folder / "model.n2n", self._session, parameters)
        self._verified = False
        self._lock = threading.Lock()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Denoise the micrographs of some requests; one that cannot be denoised gets an error, the others are done."""
        import triton_python_backend_utils as backend

        return [self._respond(backend, request) for request in requests]

    def finalize(self) -> None:
        """Free the model."""
        self._denoiser.close()

    def _respond(self, backend: Any, request: Any) -> Any:
        try:
            self._verify()
            tensors = [backend.get_input_tensor_by_name(request, name) for name in ("MICROGRAPH", "OPTICS", "CTF")]
            micrograph, optics, *fit = [np.from_dlpack(tensor) for tensor in tensors if tensor is not None]
            pixel_size, *known = map(float, optics)
            group = Optics(pixel_size, *(None if math.isnan(value) else value for value in known))
            ctf = CTFParameters(*map(float, fit[0])) if fit else None
            found = self._denoiser.denoise(micrograph, group, ctf, network_images=False)
        except N2NError as error:
            return backend.InferenceResponse(output_tensors=[], error=backend.TritonError(str(error)))
        notes = np.frombuffer("".join(f"{note}\n" for note in found.notes).encode(), np.uint8)
        return backend.InferenceResponse(
            output_tensors=[
                _tensor(backend, "DENOISED", found.image),
                _tensor(backend, "PIXEL_SIZE", np.array([found.pixel_size])),
                _tensor(backend, "NOTES", notes),
            ]
        )

    def _verify(self) -> None:
        with self._lock:
            if not self._verified:
                verify(self._denoiser.bundle, self._session, self._precision)
                self._verified = True


class ServerSession(Closing):
    """The network as a model of the same server.

    Args:
        model: its name.
        version: of it; another one may belong to another recipe.
    """

    name = "triton"

    def __init__(self, model: str, version: int) -> None:
        self._model = model
        self._version = version

    @property
    def device(self) -> Device:
        """The host, which the server copies from and to."""
        return HOST

    def run(self, batch: Array) -> Array:
        """Denoise (n, 1, height, width) float32; same shape back.

        Raises:
            OutOfMemoryError: the server has too little memory for so many pixels.
            HostError: it cannot run the network.
        """
        import triton_python_backend_utils as backend

        request = backend.InferenceRequest(
            model_name=self._model,
            model_version=self._version,
            requested_output_names=["denoised"],
            inputs=[_tensor(backend, "image", batch.astype(np.float32, copy=False))],
            preferred_memory=backend.PreferredMemory(backend.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            message = response.error().message()
            problem = f"model {self._model} of the server cannot denoise {batch.shape}: {message}"
            raise OutOfMemoryError(problem) if is_memory_error(RuntimeError(message)) else HostError(problem)
        return np.from_dlpack(backend.get_output_tensor_by_name(response, "denoised"))

    def memory(self, shape: tuple[int, int]) -> int:
        """Bytes on the host; what the server needs itself is not known here."""
        return 2 * _COPIES * np.dtype(np.float32).itemsize * math.prod(shape)

    def close(self) -> None:
        """Do nothing: the network is the server's."""


def _tensor(backend: Any, name: str, array: Array) -> Any:
    """A tensor by DLPack: the servers of many releases were built for NumPy 1 and misread the arrays of NumPy 2."""
    return backend.Tensor.from_dlpack(name, np.require(array, requirements=["C", "W"]))


def _open(path: Path, session: ServerSession, parameters: dict[str, str]) -> Denoiser:
    """The denoiser that a model's parameters describe."""
    number = {name: float(parameters[name]) if parameters.get(name) else None for name in _NUMBERS}
    flag = {name: parameters.get(name, "").lower() in ("true", "1", "yes") for name in _FLAGS}
    resolution, width = number["merge_resolution"], number["merge_width"] or 1.0
    return Denoiser(
        path,
        session=session,
        flip_back=flag["flip_back"],
        tta=flag["tta"],
        invert=flag["invert"],
        max_resolution=number["max_resolution"],
        lowpass=number["lowpass"],
        output_pixel_size=number["output_pixel_size"],
        merge=None if resolution is None else Merge(resolution, width),
    )


_NUMBERS = ("max_resolution", "lowpass", "output_pixel_size", "merge_resolution", "merge_width")
_FLAGS = ("flip_back", "tta", "invert")
