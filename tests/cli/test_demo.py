"""`n2n-deploy demo`: on a real micrograph, against the Wiener filter that its own halves give."""

import json
from pathlib import Path

import mrcfile
import pytest

from n2n_deploy.data import GENERAL_MODEL, MICROGRAPH_PIXEL_SIZE
from n2n_deploy.demonstration import METHODS

from .conftest import Run


@pytest.mark.skipif(not GENERAL_MODEL.is_file(), reason="the general model is not in this checkout")
def test_demo_measures_all_models_on_rows_that_none_has_seen(tmp_path: Path, run: Run) -> None:
    code, said, error = run("demo", "-o", tmp_path / "demo", "--minutes", 0.1, "--json")
    assert code == 0, error
    found = json.loads(said)
    recovered = {name: found[name]["recovered_signal_fraction"] for name in METHODS}
    assert recovered["general"] > recovered["wiener"]
    assert recovered["adapted"] > 0.22
    assert recovered["fine_tuned"] > 0.22
    assert Path(found["picture"]).stat().st_size > 100_000
    with mrcfile.open(tmp_path / "demo" / "denoised" / "micrographs" / "real_0001_DW.mrc") as file:
        assert file.data.shape == (3838, 3710)
        assert file.voxel_size.x == pytest.approx(MICROGRAPH_PIXEL_SIZE, rel=1e-5)
