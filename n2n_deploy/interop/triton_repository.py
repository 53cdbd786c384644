"""A model repository for NVIDIA Triton: the network for the ONNX Runtime backend, and a model that denoises with it.

    REPOSITORY/denoise/config.pbtxt, 1/model.py, 1/model.n2n     Python backend: a micrograph in, denoised out
    REPOSITORY/denoise_network/config.pbtxt, 1/model.onnx        the network alone, which the first one calls

Formats and settings are those of Triton's documentation, "Model Repository" and "Model Configuration", and of the
READMEs of its onnxruntime_backend and python_backend.
"""

import re
from pathlib import Path
from typing import Literal

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import Precision
from n2n_deploy.files.atomic import atomic_write

_MODEL = '''"""Denoise micrographs; see n2n_deploy.interop.triton_model. The Python of the server needs n2n-deploy."""

from n2n_deploy.interop.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_TENSORRT = """\
optimization {{ execution_accelerators {{
  gpu_execution_accelerator: [ {{
    name: "tensorrt"
    parameters {{ key: "precision_mode" value: "{mode}" }}
    parameters {{ key: "max_workspace_size_bytes" value: "4294967296" }}
    parameters {{ key: "trt_engine_cache_enable" value: "true" }}
  }} ]
}} }}
"""
"""An engine takes minutes to build; the server keeps it in its current folder, or in `trt_engine_cache_path`."""

_NETWORK = """\
name: "{name}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 0
# (n, 1, height, width), normalised; any sides that are multiples of 8
input [ {{ name: "image" data_type: TYPE_FP32 dims: [ -1, 1, -1, -1 ] }} ]
output [ {{ name: "denoised" data_type: TYPE_FP32 dims: [ -1, 1, -1, -1 ] }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
# The version before this one stays, for requests that began with it.
version_policy: {{ latest {{ num_versions: 2 }} }}
{accelerator}"""

_DENOISE = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [
  {{ name: "MICROGRAPH" data_type: TYPE_FP32 dims: [ -1, -1 ] }}, # (ny, nx)
  # pixel size in Å, voltage in kV, spherical aberration in mm, amplitude contrast; NaN for what is unknown
  {{ name: "OPTICS" data_type: TYPE_FP64 dims: [ 4 ] }}{ctf}
]
output [
  {{ name: "DENOISED" data_type: TYPE_FP32 dims: [ -1, -1 ] }},
  {{ name: "PIXEL_SIZE" data_type: TYPE_FP64 dims: [ 1 ] }},
  {{ name: "NOTES" data_type: TYPE_UINT8 dims: [ -1 ] }} # what the user should know: UTF-8, a line for each note
]
# Each instance denoises one micrograph at a time: several hide the Fourier work of one behind the network of another.
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
version_policy: {{ latest {{ num_versions: 1 }} }}
parameters {{ key: "network" value: {{ string_value: "{network}" }} }}
parameters {{ key: "precision" value: {{ string_value: "{precision}" }} }}
# Also understood: max_resolution, lowpass, output_pixel_size, merge_resolution, merge_width (Å), and tta and invert
# (true or false).
parameters {{ key: "flip_back" value: {{ string_value: "false" }} }}
"""

_CTF = """,
  # defocus U and V in Å, angle of astigmatism and phase shift in degrees
  { name: "CTF" data_type: TYPE_FP64 dims: [ 4 ]%s }"""


def write_repository(
    bundle: Bundle,
    repository: Path,
    *,
    name: str = "denoise",
    device: Literal["cpu", "gpu"] = "gpu",
    precision: Precision | None = None,
    instances: int = 2,
) -> tuple[Path, int]:
    """Add a model to a repository, or a new version of it.

    Args:
        bundle: the model.
        repository: folder of Triton's models; made if there is none.
        name: of the model; its network is called NAME_network.
        device: where the server runs the network; on GPUs through TensorRT.
        precision: of the network; None for fp16 on a GPU and fp32 on a CPU.
        instances: micrographs denoised concurrently.

    Returns:
        The model's folder, and its version.

    Raises:
        UsageError: the name is not one that Triton takes, or int8 is asked for on a GPU.
        BundleError: the bundle has no ONNX model of this precision, or is damaged.
        HostError: the repository cannot be written.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"invalid --name {name!r}; use letters, digits, underscores, dots and hyphens")
    precision = precision or ("fp16" if device == "gpu" else "fp32")
    if precision == "int8" and device == "gpu":
        raise UsageError("--precision int8 is for CPUs; choose fp16 or fp32, or --device cpu")
    network = f"{name}_network"
    onnx = bundle.onnx(precision)
    version = 1 + max((_newest(repository / model) for model in (name, network)), default=0)
    accelerator = ""
    if device == "gpu":
        accelerator = _TENSORRT.format(mode="FP16" if precision == "fp16" else "FP32")
    kind = {"gpu": "KIND_GPU", "cpu": "KIND_CPU"}[device]
    texts = {
        network: _NETWORK.format(name=network, kind=kind, accelerator=accelerator),
        name: _DENOISE.format(
            name=name,
            network=network,
            precision=precision,
            instances=instances,
            ctf=_ctf_input(bundle),
        ),
    }
    # The network first: a server that polls may load each as soon as it is there.
    for path, content in (
        (repository / network / str(version) / "model.onnx", onnx),
        (repository / network / "config.pbtxt", texts[network].encode()),
        (repository / name / str(version) / "model.n2n", bundle.path.read_bytes()),
        (repository / name / str(version) / "model.py", _MODEL.encode()),
        (repository / name / "config.pbtxt", texts[name].encode()),
    ):
        with atomic_write(path, size=len(content)) as stream:
            stream.write(content)
    return repository / name, version


def _ctf_input(bundle: Bundle) -> str:
    """The input for the CTF: optional where the network takes flipped and unflipped phases."""
    if bundle.accepts is not None and bundle.accepts.either_phase:
        return _CTF % " optional: true"
    return _CTF % "" if bundle.recipe.phase_flip else ""


def _newest(model: Path) -> int:
    """The newest version of a model; 0 if there is none."""
    versions = [int(path.name) for path in model.glob("*") if path.name.isdigit()] if model.is_dir() else []
    return max(versions, default=0)
