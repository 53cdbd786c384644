"""The trainable weights in a bundle: plain arrays, from which the network is rebuilt to be trained on.

The ONNX models hold the same numbers padded, rounded and under other names: nothing can be trained on from those.
"""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import WEIGHTS
from n2n_deploy.core.errors import BundleError

Weights = dict[str, NDArray[np.float32]]
"""The network's parameters by name, such as "first.weight" (out, in, y, x) and "first.bias" (out,)."""


def pack_weights(weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the member `weights.npz`: NumPy's archive without pickled objects, float32 as trained."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = dict(weights)
    np.savez(packed, **arrays)
    return packed.getvalue()


def read_weights(bundle: Bundle) -> Weights:
    """Read the trainable weights of a bundle.

    Raises:
        BundleError: the bundle carries none, or they are damaged.
    """
    if WEIGHTS not in bundle.manifest.members:
        raise BundleError(
            f"{bundle.path}: carries no trainable weights, since n2n-deploy {bundle.manifest.package_version} exported "
            "it without; export its model.pt again with this version"
        )
    try:
        with np.load(io.BytesIO(bundle.read(WEIGHTS)), allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"{bundle.path}: {WEIGHTS} cannot be read: {error}; export the model again") from error
