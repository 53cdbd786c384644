"""Names of a bundle's members, the files in its zip."""

from n2n_deploy.core.options import Precision

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
RECIPE = "recipe.json"
GOLDEN = "golden.npz"
GOLDEN_INT8 = "golden.int8.npz"
WEIGHTS = "weights.npz"
SEGMENTS = "segments/"

UNLISTED = (MANIFEST, SIGNATURE)
"""The members that the manifest does not list."""


def onnx_member(precision: Precision) -> str:
    """Name of the ONNX model of a precision."""
    return f"model.{precision}.onnx"


def segment_member(index: int) -> str:
    """Name of a segment's ONNX model; see `n2n_deploy.export.segments`."""
    return f"{SEGMENTS}{index:02d}.onnx"


def engine_member(key: str) -> str:
    """Name of the compiled engine with this key."""
    return f"engines/{key}.engine"


REQUIRED = (RECIPE, onnx_member("fp32"), onnx_member("fp16"), GOLDEN)
"""The listed members that every bundle has."""
