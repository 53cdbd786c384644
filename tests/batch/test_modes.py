"""Every MRC mode through a whole run; other programs crash or return NaN on some."""

import gzip
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy import DenoiseOptions, denoise

from .conftest import PIXEL_SIZE, MakeBundle, MakeTable, band_limited


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [
        ("int8", 5.0, -500.0),
        ("int16", 1000.0, -90_000.0),
        ("uint16", 1000.0, -60_000.0),
        ("float16", 1000.0, -60_000.0),  # around 40 000: sums and squares of a few pixels are beyond float16
        ("float32", 1000.0, 1e6),
    ],
)
def test_identity_network_returns_every_mode(
    dtype: str, scale: float, offset: float, packed: bool, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(1)
    path = tmp_path / "job" / "mics" / "m0.mrc"
    image = scale * band_limited(0).astype(np.float64) + offset
    stored = image.astype(dtype) if dtype.startswith("float") else np.rint(image).astype(dtype)
    assert np.abs(stored.astype(np.float64) - image).max() <= 0.51 + 2.0**-11 * abs(image).max() * (dtype == "float16")
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(stored)
        mrc.voxel_size = PIXEL_SIZE
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=DenoiseOptions(report=False, lanes=1))
    assert (summary.denoised, summary.failures, summary.notes) == (1, {}, {})
    written = tmp_path / "out" / "job" / "mics" / "m0.mrc"
    assert mrcfile.validate(written)
    with mrcfile.open(written) as mrc:
        assert mrc.data.dtype == np.float32
        # What rounding added is white; the model's resolution leaves a part of it.
        assert np.std(mrc.data - image) < 0.6 * np.std(stored - image) + 2e-6 * abs(image).max()
        assert float(mrc.header.dmean) == pytest.approx(stored.mean(dtype=np.float64), rel=1e-6, abs=1e-3)
        assert float(mrc.header.rms) == pytest.approx(image.std(), rel=2e-2 if dtype == "int8" else 1e-3)
