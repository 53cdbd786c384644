"""`halves`: the denoised even and odd images beside each output, in the table, and as part of the work."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.options import OnExists
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.io.star import read_micrographs

from .conftest import PIXEL_SIZE, MakeBundle, MakeTable, band_limited

HALVES = DenoiseOptions(report=False, lanes=1, halves=True)
SUFFIXES = NamingOptions(suffixes=("", "EVN", "ODD"))
EVEN, ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"


@pytest.fixture
def source(table: MakeTable, tmp_path: Path) -> Path:
    """A table of two micrographs with halves; the sums have their mean."""
    path = table(2)
    for number in range(2):
        even, odd = band_limited(100 + number), band_limited(200 + number)
        for ending, image in (("", (even + odd) / 2), ("_EVN", even), ("_ODD", odd)):
            with mrcfile.new(tmp_path / "job" / "mics" / f"m{number}{ending}.mrc", overwrite=True) as mrc:
                mrc.set_data(image)
                mrc.voxel_size = PIXEL_SIZE
    return path


def test_halves_are_written_and_named_in_the_table(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    denoise(source, identity_bundle(), out, options=HALVES, naming=SUFFIXES)
    rows = starfile.read(out / "denoised.star", always_dict=True)["micrographs"]
    assert list(rows[EVEN]) == [f"out/job/mics/m{number}_EVN.mrc" for number in range(2)]
    assert list(rows[ODD]) == [f"out/job/mics/m{number}_ODD.mrc" for number in range(2)]
    for number, row in rows.iterrows():
        for label, seed in ((EVEN, 100), (ODD, 200)):
            assert mrcfile.validate(tmp_path / row[label])
            np.testing.assert_allclose(mrcfile.read(tmp_path / row[label]), band_limited(seed + number), atol=0.01)
    # Whoever reads the table finds the halves: for half tomograms, an FSC, or IsoNet.
    again = read_micrographs(out / "denoised.star", need_ctf=False, need_halves=True)
    assert [each.even for each in again.micrographs] == [tmp_path / name for name in rows[EVEN]]


def test_each_half_goes_through_the_network_alone(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = identity_bundle(max_resolution=30.0, phase_flip=True)
    denoise(source, bundle, tmp_path / "out", options=HALVES, naming=SUFFIXES)
    alone = tmp_path / "alone.star"
    alone.write_text(source.read_text().replace("/m0.mrc", "/m0_EVN.mrc"))
    denoise(alone, bundle, tmp_path / "alone", options=DenoiseOptions(report=False))
    made, expected = (mrcfile.read(tmp_path / folder / "job" / "mics" / "m0_EVN.mrc") for folder in ("out", "alone"))
    np.testing.assert_array_equal(made, expected)
    assert np.abs(made - band_limited(100)).max() > 0.1


def test_missing_half_output_is_made_again(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, out = identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=HALVES, naming=SUFFIXES)
    (out / "job" / "mics" / "m1_ODD.mrc").unlink()
    summary = denoise(source, bundle, out, options=HALVES, naming=SUFFIXES)
    assert (summary.denoised, summary.already_done) == (1, 1)
    assert (out / "job" / "mics" / "m1_ODD.mrc").exists()


def test_outputs_without_halves_are_not_this_work(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, out = identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=DenoiseOptions(report=False), naming=SUFFIXES)
    assert EVEN not in starfile.read(out / "denoised.star", always_dict=True)["micrographs"]
    with pytest.raises(UsageError, match="2 outputs already exist and were not made by this model with these options"):
        denoise(source, bundle, out, options=HALVES, naming=SUFFIXES)
    again = HALVES.model_copy(update={"on_exists": OnExists.OVERWRITE})
    assert denoise(source, bundle, out, options=again, naming=SUFFIXES).denoised == 2
    assert EVEN in starfile.read(out / "denoised.star", always_dict=True)["micrographs"]


def test_bad_half_leaves_no_output(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    half = tmp_path / "job" / "mics" / "m0_ODD.mrc"
    with mrcfile.open(half, "r+") as mrc:
        mrc.data[:] = 3.0
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=HALVES, naming=SUFFIXES)
    assert str(half) in summary.failures["job/mics/m0.mrc"]
    assert not (tmp_path / "out" / "job" / "mics" / "m0.mrc").exists()
    half.unlink()
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=HALVES, naming=SUFFIXES)
    assert "the odd half is missing" in summary.failures["job/mics/m0.mrc"]


def test_halves_are_needed(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no {EVEN} and no {ODD}"):
        denoise(table(1), identity_bundle(), tmp_path / "out", options=HALVES)


def test_half_that_would_replace_another_output_is_refused(
    source: Path, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    text = source.read_text()
    source.write_text(text.replace("job/mics/m1.mrc", "job/mics/m0_EVN.mrc"))
    naming = NamingOptions(even_template="{folder}/m0_EVN.mrc", odd_template="{folder}/m1_ODD.mrc")
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=HALVES, naming=naming)
    assert "2 rows of the table have the same output" in summary.failures["job/mics/m0.mrc"]


def test_halves_of_the_input_are_never_overwritten(source: Path, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    mics = tmp_path / "job" / "mics"
    for file in (*mics.glob("m0*"),):
        file.rename(mics / file.name.replace("m0", "x/m0").replace("x/", ""))
    moved = tmp_path / "elsewhere" / "job" / "mics"
    moved.mkdir(parents=True)
    (mics / "m0.mrc").rename(moved / "m0.mrc")
    naming = NamingOptions(
        even_template=f"{mics}/{{stem}}_EVN.mrc",
        odd_template=f"{mics}/{{stem}}_ODD.mrc",
        project=tmp_path / "elsewhere",
    )
    with pytest.raises(UsageError, match=r"m0_EVN\.mrc is one of the inputs"):
        denoise(source, identity_bundle(), tmp_path, options=HALVES, naming=naming)
