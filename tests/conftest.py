"""Where the tests find data and programs that are not part of the project; absent ones are skipped with a reason."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data: `$N2N_DEPLOY_SHARED`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("N2N_DEPLOY_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real test data are not at {folder}; set N2N_DEPLOY_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def relion(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a RELION program (Debian's `relion`) with arguments in a folder and return what it printed."""
    elsewhere = tmp_path_factory.mktemp("relion")  # some programs litter the folder they run in
    if shutil.which("relion_image_handler") is None:
        pytest.skip("RELION is not installed (Debian: apt-get install relion)")

    def run(program: str, *arguments: object, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [program, *map(str, arguments)],
            cwd=cwd or elsewhere,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    return run
