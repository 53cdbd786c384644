"""A simulated micrograph for the tests of defects."""

import mrcfile
import numpy as np
import pytest
from defective_micrograph import Micrograph

from n2n_deploy.io.star import read_micrographs
from n2n_deploy.simulate.dataset import simulate


@pytest.fixture(scope="session")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Micrograph:
    """1024×768 pixels of 2 Å."""
    folder = tmp_path_factory.mktemp("simulated")
    found = read_micrographs(simulate(folder, micrographs=1, size=(768, 1024), pixel_size=2.0)).micrographs[0]
    image, truth = (np.asarray(mrcfile.read(path)) for path in (found.path, folder / "truth" / "mic_0001.mrc"))
    assert found.ctf is not None
    return Micrograph(image.astype(np.float32), truth, found.optics, found.ctf)
