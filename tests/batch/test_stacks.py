"""Tilt stacks as MotionCor3 and AreTomo write them: denoised image by image, with mrcfile as the other reader."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy import DenoiseOptions, Denoiser, denoise
from n2n_deploy.batch.dry_run import forecast
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.status import Status
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.imaging.ctf import Optics

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, band_limited

PLAIN = DenoiseOptions(report=False, lanes=1)
TILTS = np.arange(-6, 9, 3, dtype=np.int16)
SUFFIXES = NamingOptions(suffixes=("", "EVN", "ODD"))

Save = Callable[..., Path]


@pytest.fixture
def stack(tmp_path: Path) -> Save:
    """Write a stack whose extended header holds tilt angles, as SerialEM's does; returns the file."""

    def save(name: str = "TS_01.st", *, seed: int = 0, images: int = len(TILTS)) -> Path:
        path = tmp_path / "stacks" / name
        path.parent.mkdir(exist_ok=True)
        with mrcfile.new(path, overwrite=True) as mrc:
            mrc.set_data(np.stack([band_limited(seed + number) for number in range(images)]))
            mrc.set_image_stack()
            mrc.voxel_size = PIXEL_SIZE
            mrc.set_extended_header(TILTS)
            mrc.header.exttyp = b"SERI"
            mrc.header.origin.x = 17
        return path

    return save


@pytest.mark.parametrize("name", ["TS_01.st", "TS_01.mrcs"])
def test_identity_network_returns_stack_and_header(
    name: str, stack: Save, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, out = stack(name), tmp_path / "out"
    summary = denoise(source, identity_bundle(), out, options=PLAIN)
    assert (summary.denoised, summary.exit_code) == (1, 0)
    assert summary.megapixels == pytest.approx(len(TILTS) * SHAPE[0] * SHAPE[1] / 1e6)
    written = next(out.rglob(name))
    assert mrcfile.validate(written)
    with mrcfile.open(source) as given, mrcfile.open(written) as made:
        np.testing.assert_allclose(made.data, given.data, atol=0.01)
        assert made.is_image_stack()
        assert made.extended_header.tobytes() == TILTS.tobytes()
        assert made.voxel_size == given.voxel_size
        assert made.header.origin.x == 17
        assert made.header.dmean == pytest.approx(given.data.mean(), abs=0.01)
    again = denoise(source, identity_bundle(), out, options=PLAIN)
    assert (again.denoised, again.already_done) == (0, 1)


def test_each_image_is_denoised_by_itself(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = stack(images=2), identity_bundle(max_resolution=30.0)
    denoise(source, bundle, tmp_path / "out", options=PLAIN)
    with mrcfile.new(tmp_path / "alone.mrc") as mrc:
        mrc.set_data(band_limited(1))
        mrc.voxel_size = PIXEL_SIZE
    denoise(tmp_path / "alone.mrc", bundle, tmp_path / "alone", options=PLAIN)
    made = mrcfile.read(next((tmp_path / "out").rglob("*.st")))
    np.testing.assert_array_equal(made[1], mrcfile.read(tmp_path / "alone" / "alone.mrc"))
    assert np.abs(made[1] - band_limited(1)).max() > 0.1  # the resolution limit is there


def test_halves_of_stacks_are_denoised_too(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = stack()
    halves = {which: stack(f"TS_01_{which}.st", seed=seed) for which, seed in (("EVN", 100), ("ODD", 200))}
    options, out = PLAIN.model_copy(update={"halves": True}), tmp_path / "out"
    asked = Request.open(f"{source.parent}/*.st", identity_bundle(), out, options, naming=SUFFIXES)
    found = forecast(asked).as_dict()
    assert found["to_do"] == 1
    assert "2 files with the suffixes of even and odd halves left out" in found["notes"][0]
    assert found["kinds"][0]["images"] == 3 * len(TILTS)
    summary = denoise(f"{source.parent}/*.st", identity_bundle(), out, options=options, naming=SUFFIXES)
    assert (summary.denoised, summary.exit_code) == (1, 0)
    assert summary.notes["input"] == tuple(found["notes"])
    written = {path.name: path for path in out.rglob("*.st")}
    assert sorted(written) == ["TS_01.st", "TS_01_EVN.st", "TS_01_ODD.st"]
    assert found["disk_needed"] + 3 * TILTS.nbytes == sum(path.stat().st_size for path in written.values())
    for which, half in halves.items():
        made = mrcfile.read(written[f"TS_01_{which}.st"])
        np.testing.assert_allclose(made, mrcfile.read(half), atol=0.01)


def test_average_of_the_halves_stands_for_each_image(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = stack(), identity_bundle()
    even, odd = (mrcfile.read(stack(f"TS_01_{which}.st", seed=seed)) for which, seed in (("EVN", 100), ("ODD", 200)))
    options = PLAIN.model_copy(update={"average_halves": True})
    denoise(source, bundle, tmp_path / "out", options=options, naming=SUFFIXES)
    made = mrcfile.read(next((tmp_path / "out").rglob("*.st")))
    with Denoiser(bundle) as denoiser:
        for number, section in enumerate(made):
            halves = even[number], odd[number]
            expected = denoiser.denoise(band_limited(number), Optics(PIXEL_SIZE), halves=halves).image
            np.testing.assert_allclose(section, expected, atol=1e-4)
    assert not np.allclose(made, mrcfile.read(source), atol=0.1)


def test_bad_image_is_named_and_leaves_no_output(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = stack()
    with mrcfile.open(source, "r+") as mrc:
        mrc.data[3] = 5.0
    good = stack("TS_02.st", seed=50)
    summary = denoise([source, good], identity_bundle(), tmp_path / "out", options=PLAIN)
    assert summary.denoised == 1
    assert f"{source}: image 4 of {len(TILTS)}: " in summary.failures[str(source)]
    assert [path.name for path in (tmp_path / "out").rglob("*.st")] == ["TS_02.st"]


def test_the_same_note_on_several_images_is_one(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = stack()
    with mrcfile.open(source, "r+") as mrc:
        mrc.data[[1, 4], 20, 30] = np.nan
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=PLAIN)
    (note,) = summary.notes[str(source)]
    assert note.startswith("images 2, 5: ")


def test_model_that_flips_phases_needs_the_ctf_of_each_image(
    stack: Save, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = stack(), identity_bundle(phase_flip=True)
    with pytest.raises(UsageError, match="give RELION 5's table of tilt series with the CTF of each image"):
        denoise(source, bundle, tmp_path / "out", options=PLAIN)
    table = tmp_path / "stacks.star"
    table.write_text(
        "data_\nloop_\n_rlnMicrographName\n_rlnMicrographPixelSize\n_rlnVoltage\n_rlnSphericalAberration\n"
        "_rlnAmplitudeContrast\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
        "stacks/TS_01.st 2.0 300 2.7 0.1 15000 14900 30\n"
    )
    (job,) = forecast(Request.open(table, bundle, tmp_path / "out", PLAIN)).plan.with_status(Status.REFUSED)
    assert "holds 5 images, and the model needs the CTF of each to flip phases; give RELION 5's table" in job.reason


def test_volume_with_the_name_of_a_micrograph_stays_refused(
    stack: Save, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    path = stack("TS_01.mrc")
    summary = denoise(path, identity_bundle(), tmp_path / "out", options=PLAIN)
    assert "holds 5 sections, but a micrograph has one" in summary.failures[str(path)]
    assert ".mrcs" in summary.failures[str(path)]


def test_memory_does_not_grow_with_the_number_of_images(
    stack: Save, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    peaks = []
    for images in (2, 5, 60):  # the first pays for caches
        source = stack(f"TS_{images}.st", images=images)
        tracemalloc.start()
        denoise(source, identity_bundle(), tmp_path / f"out{images}", options=PLAIN)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2 * 4 * SHAPE[0] * SHAPE[1]


def test_report_shows_the_middle_image(stack: Save, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = stack()
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=DenoiseOptions(lanes=1))
    assert summary.notes == {}
    assert summary.report == tmp_path / "out" / "report.html"
    entries = [
        line for file in (tmp_path / "out" / "ledger").glob("*.jsonl") for line in file.open() if "views" in line
    ]
    assert len(entries) == 1


def test_time_limit_is_for_one_file_access_not_for_the_stack(
    stack: Save, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Denoiser.denoise

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(0.5)
        return compute(*arguments, **options)

    monkeypatch.setattr(Denoiser, "denoise", slow)
    options = DenoiseOptions(report=False, lanes=1, timeout=2.0)
    summary = denoise(stack(images=6), identity_bundle(), tmp_path / "out", options=options)
    assert (summary.denoised, summary.failures) == (1, {})
