"""The tutorial's commands, taken from the page and run in order, with seconds of training in place of minutes.

The tests of this folder mirror no package folder: they are about the pages in `docs/`.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"

SECONDS = {"--max-minutes": "0.05", "--micrographs": "2", "--size": "512x512"}
"""Options that the test replaces, so that it takes seconds."""


def commands(page: str) -> list[list[str]]:
    """Every command in the page's blocks of shell code, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def shortened(words: list[str]) -> list[str]:
    """The command with the values of `SECONDS` after their options."""
    return [SECONDS.get(before, word) for before, word in zip(["", *words], words, strict=False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tutorial's commands have been run."""
    folder = tmp_path_factory.mktemp("tutorial")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for words in commands(PAGE.read_text(encoding="utf-8")):
        assert words[0] == "n2n-deploy", f"{PAGE.name}: the test cannot run {words[0]}"
        command = [sys.executable, "-m", "n2n_deploy", *shortened(words)[1:]]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return folder


def test_the_page_has_the_whole_way() -> None:
    names = [words[1] for words in commands(PAGE.read_text(encoding="utf-8"))]
    assert list(dict.fromkeys(names)) == ["simulate", "train", "export", "inspect", "verify", "denoise", "evaluate"]


def test_what_the_page_names_is_there(folder: Path) -> None:
    """Every path in the page's text that lies in a folder of the tutorial."""
    named = re.findall(r"`((?:run|train|denoised|evaluation)/[\w./]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 6
    for name in named:
        assert (folder / name).is_file(), name


def test_denoised_micrographs_are_valid_and_have_the_input_s_size(folder: Path) -> None:
    with mrcfile.open(folder / "test/micrographs/mic_0001_DW.mrc") as raw:
        shape, pixel_size = raw.data.shape, float(raw.voxel_size.x)
    path = folder / "denoised/micrographs/mic_0001_DW.mrc"
    assert mrcfile.validate(path)
    with mrcfile.open(path) as denoised:
        assert denoised.data.shape == shape
        assert float(denoised.voxel_size.x) == pytest.approx(pixel_size)


def test_the_evaluation_of_the_halves_agrees_with_the_truth(folder: Path) -> None:
    """The halves' covariance estimates the variance of the true signal, whatever the network has learned."""
    content = json.loads((folder / "evaluation/evaluation.json").read_text())
    signal = content["set"]["var_signal"]
    np.testing.assert_allclose(signal["value"], signal["true"], rtol=0.3)
