"""What field data do to a batch: repeated rows, outputs given as inputs, wrong pixel sizes, globs that meet outputs."""

import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.dry_run import forecast
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Request, Shard

from .conftest import PIXEL_SIZE, MakeBundle, MakeTable, band_limited, listed

PLAIN = DenoiseOptions(report=False, lanes=1)


def test_micrograph_listed_twice_is_denoised_once_and_listed_twice(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(3), identity_bundle(phase_flip=True), tmp_path / "out"
    row = next(line for line in source.read_text().splitlines() if line.startswith("job/mics/m1"))
    source.write_text(f"{source.read_text()}{row.replace('3.150', '9.990')}\n")
    (note,) = forecast(Request.open(source, bundle, out, PLAIN)).plan.notes
    assert "1 of 4 rows repeat another one with the same file, optics and CTF" in note
    # Whole, and in shards that each see one of the two rows.
    for folder, shards in ((out, [None]), (tmp_path / "shards", [Shard(1, 2), Shard(2, 2)])):
        summaries = [denoise(source, bundle, folder, options=PLAIN, shard=shard) for shard in shards]
        assert [each.exit_code for each in summaries] == [0] * len(shards)
        assert sum(each.denoised for each in summaries) == 3
        assert summaries[0].notes["input"] == (note,)
        assert merge_results([folder]).summary["listed"] == 4
        rows = starfile.read(folder / "denoised.star", always_dict=True)["micrographs"]
        assert [Path(name).name for name in rows["rlnMicrographName"]] == ["m0.mrc", "m1.mrc", "m2.mrc", "m1.mrc"]
        assert list(rows["rlnCtfMaxResolution"]) == [3.05, 3.15, 3.25, 9.99]


def test_failed_micrograph_listed_twice_keeps_both_rows(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(2), identity_bundle(), tmp_path / "out"
    row = next(line for line in source.read_text().splitlines() if line.startswith("job/mics/m1"))
    source.write_text(f"{source.read_text()}{row}\n")
    path = tmp_path / "job" / "mics" / "m1.mrc"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])
    assert denoise(source, bundle, out, options=PLAIN).exit_code == 1
    assert listed(out / "failed.star") == ["m1.mrc", "m1.mrc"]
    path.write_bytes(whole)
    assert denoise(out / "failed.star", bundle, out, options=PLAIN).exit_code == 0
    assert listed(out / "denoised.star") == ["m0.mrc", "m1.mrc", "m1.mrc"]


@pytest.mark.parametrize(("old", "new"), [("job/mics/m1", "./job/mics/m0"), ("job/mics/m1", "job/mics/m0")])
def test_different_rows_of_one_output_are_refused_also_across_shards(
    old: str, new: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(2)
    source.write_text(source.read_text().replace(old, new))  # the other row's defocus differs
    for index in (1, 2):
        summary = denoise(source, identity_bundle(), tmp_path / "out", options=PLAIN, shard=Shard(index, 2))
        (reason,) = summary.failures.values()
        assert "2 rows of the table have the same output" in reason
        assert "differ in name, file, optics or CTF" in reason


def test_denoised_micrographs_are_refused_as_input(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(2), identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=PLAIN)
    again = tmp_path / "again"
    # As a table, and as a file among raw ones.
    summary = denoise(out / "denoised.star", bundle, again, options=PLAIN)
    assert (summary.denoised, len(summary.failures)) == (0, 2)
    reason = summary.failures["out/job/mics/m0.mrc"]
    assert "was denoised already" in reason
    assert "--allow-denoised" in reason
    files = [out / "job" / "mics" / "m0.mrc", tmp_path / "job" / "mics" / "m1.mrc"]
    summary = denoise(files, bundle, tmp_path / "mixed", options=PLAIN)
    assert (summary.denoised, list(summary.failures)) == (1, [str(files[0])])
    insisting = PLAIN.model_copy(update={"allow_denoised": True})
    assert denoise(out / "denoised.star", bundle, again, options=insisting).denoised == 2


@pytest.mark.parametrize("stated", [0.0, 1.37])
def test_output_has_the_pixel_size_that_was_used(
    stated: float, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(1)
    with mrcfile.open(tmp_path / "job" / "mics" / "m0.mrc", "r+") as mrc:
        mrc.voxel_size = stated
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=PLAIN)
    path = tmp_path / "out" / "job" / "mics" / "m0.mrc"
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        assert (mrc.voxel_size.x, mrc.voxel_size.y) == pytest.approx((PIXEL_SIZE, PIXEL_SIZE))
    notes = " ".join(summary.notes.get("job/mics/m0.mrc", ()))
    assert ("1.37 Å in the header; the table's is used, and written to the output" in notes) == (stated > 0)


def test_glob_leaves_the_output_folder_out(identity_bundle: MakeBundle, tmp_path: Path) -> None:
    mics = tmp_path / "mics"
    (mics / "grid1").mkdir(parents=True)
    for number, name in enumerate(("a_DW", "b_DW", "a", "a_DWS", "a_EVN")):
        with mrcfile.new(mics / "grid1" / f"{name}.mrc") as mrc:
            mrc.set_data(band_limited(number))
            mrc.voxel_size = PIXEL_SIZE
    bundle, out, pattern = identity_bundle(), mics / "denoised", f"{mics}/**/*_DW.mrc"
    first = denoise(pattern, bundle, out, options=PLAIN)
    assert (first.denoised, first.exit_code) == (2, 0)
    told = forecast(Request.open(pattern, bundle, out, PLAIN)).as_dict()
    assert (told["done"], told["to_do"]) == (2, 0)
    assert f"2 files in the output folder {out} left out" in told["notes"][0]
    again = denoise(pattern, bundle, out, options=PLAIN)
    assert (again.already_done, again.denoised, again.exit_code) == (2, 0, 0)
    # A pattern that takes in all kinds of sums says so.
    shutil.rmtree(out)
    told = forecast(Request.open(f"{mics}/**/*.mrc", bundle, out, PLAIN)).as_dict()
    assert told["to_do"] == 5
    assert any("1 file of 5 seem" in note for note in told["notes"])
    assert any("several sums of the same movie (_DW, _DWS, no suffix)" in note for note in told["notes"])


def test_watched_folder_leaves_out_outputs_and_repeated_rows(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    from n2n_deploy.batch.watch import watch

    source = table(2)
    row = next(line for line in source.read_text().splitlines() if line.startswith("job/mics/m1"))
    source.write_text(f"{source.read_text()}{row}\n")
    for file in (tmp_path / "job" / "mics").iterdir():
        os.utime(file, (1, 1))
    request = Request.open(source, identity_bundle(), tmp_path / "out", PLAIN)
    summary = watch(request, interval=0.01, idle=0.5)
    assert (summary.denoised, summary.listed, summary.exit_code) == (2, 3, 0)
    assert np.isfinite(mrcfile.read(tmp_path / "out" / "job" / "mics" / "m1.mrc")).all()
