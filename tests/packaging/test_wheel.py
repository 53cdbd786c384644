"""Contents of the wheel: every module of the three source folders, the data, and nothing else."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, installed in (
        ("n2n_deploy", "n2n_deploy"),
        ("train", "n2n_deploy/train"),
        ("export", "n2n_deploy/export"),
    ):
        tracked = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        files = [name for name in tracked if not (ROOT / name).is_symlink()]
        assert files
        for name in files:
            assert name.replace(folder, installed, 1) in names, f"{name} is missing from the wheel"


def test_nothing_else_lands_in_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not re.fullmatch(r"n2n_deploy-[\w.]+\.dist-info", top)} == {"n2n_deploy"}


@pytest.mark.parametrize("file", ["LICENSE", "entry_points.txt"])
def test_metadata(wheel: Path, file: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith(file) and ".dist-info/" in name for name in archive.namelist())


def test_runtime_imports_no_training_library() -> None:
    code = (
        "import sys, n2n_deploy, n2n_deploy.cli.app as app; n2n_deploy.denoise; n2n_deploy.Denoiser; app.build();"
        "print(sorted({'torch', 'onnx', 'h5py', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
