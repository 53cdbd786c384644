"""The files of a micrograph's halves: what `half_files` accepts, and a clear refusal of each defect."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.halves import half_files, refuse_identical, same_image
from n2n_deploy.io.records import Micrograph

SHAPE = (60, 80)


def write(path: Path, seed: int, shape: tuple[int, int] = SHAPE) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    return path


@pytest.fixture
def micrograph(tmp_path: Path) -> Micrograph:
    names = {"path": "mic_DW.mrc", "even": "mic_EVN.mrc", "odd": "mic_ODD.mrc"}
    paths = {which: write(tmp_path / name, seed) for seed, (which, name) in enumerate(names.items())}
    return Micrograph("mics/mic_DW.mrc", optics=Optics(1.0), **paths)


def test_two_halves_are_returned(micrograph: Micrograph) -> None:
    assert half_files(micrograph) == half_files(micrograph, SHAPE) == (micrograph.even, micrograph.odd)


def test_the_sum_is_not_needed(micrograph: Micrograph) -> None:
    micrograph.path.unlink()
    assert half_files(micrograph) == (micrograph.even, micrograph.odd)


DEFECTS: dict[str, tuple[Callable[[Micrograph], object], str]] = {
    "missing": (lambda mic: mic.odd.unlink(), r"mic_ODD\.mrc: the odd half is missing"),
    "a copy of the sum": (lambda mic: shutil.copy(mic.path, mic.odd), r"mic_ODD\.mrc: .* same image as the sum"),
    "a link to the sum": (
        lambda mic: (mic.even.unlink(), mic.even.symlink_to(mic.path)),
        r"mic_EVN\.mrc: the even half is the same image as the sum mic_DW\.mrc",
    ),
    "cropped": (
        lambda mic: write(mic.odd, 3, (60, 70)),
        r"mic_ODD\.mrc: the odd half has 70×60 pixels, mic_EVN\.mrc has 80×60",
    ),
    "not an image": (lambda mic: mic.odd.write_text("text"), r"mic_ODD\.mrc"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defective_half_is_refused(defect: str, micrograph: Micrograph) -> None:
    spoil, message = DEFECTS[defect]
    spoil(micrograph)
    with pytest.raises(DataError, match=message) as caught:
        half_files(micrograph)
    assert "\n" not in str(caught.value)


def test_the_shape_of_the_sum_is_compared_on_request(micrograph: Micrograph) -> None:
    with pytest.raises(DataError, match=r"mic_EVN\.mrc: the even half has 80×60 pixels, mic_DW\.mrc has 81×60"):
        half_files(micrograph, (60, 81))


def test_a_row_without_halves_is_refused(micrograph: Micrograph) -> None:
    with pytest.raises(DataError, match=r"mics/mic_DW\.mrc: the table names no even half; see --suffixes"):
        half_files(Micrograph(micrograph.name, micrograph.path, micrograph.optics))


def test_files_of_one_size_are_told_apart_by_their_content(micrograph: Micrograph, tmp_path: Path) -> None:
    copy = Path(shutil.copy(micrograph.path, tmp_path / "copy.mrc"))
    assert same_image(micrograph.path, copy)
    assert not same_image(micrograph.path, micrograph.even)
    assert not same_image(micrograph.path, tmp_path / "missing.mrc")


def test_only_the_same_noise_is_called_identical() -> None:
    rng = np.random.default_rng(5)
    signal, first, second = rng.standard_normal((3, *SHAPE)).astype(np.float32)
    files = Path("mic_EVN.mrc"), Path("mic_ODD.mrc")
    refuse_identical(3 * signal + first, 3 * signal + second, files)  # an SNR of 9, far above any micrograph's
    with pytest.raises(DataError, match=r"mic_EVN\.mrc: identical to the odd half mic_ODD\.mrc \(correlation 0\.99"):
        refuse_identical(first, first + 0.1 * second, files)
