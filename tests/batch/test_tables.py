"""Tables, summary and report are functions of the ledger, the kept source tables and the outputs that exist."""

import json
import shutil
from pathlib import Path

import mrcfile
import pytest
import starfile

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Shard
from n2n_deploy.batch.table_join import join_tables
from n2n_deploy.io.star_document import StarDocument

from .conftest import STAR, MakeBundle, MakeTable, band_limited, listed

WRITTEN = ("denoised.star", "failed.star", "summary.json", "report.html")
PLAIN = DenoiseOptions(report=False, lanes=1)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in WRITTEN if (out / name).exists()}


def clear(out: Path) -> None:
    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)


def test_deleted_tables_summary_and_report_are_written_again(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2", reason="jinja2 is not installed (pip install 'n2n-deploy[report]')")
    source, bundle, out = table(5), identity_bundle(phase_flip=True), tmp_path / "out"
    (tmp_path / "job" / "mics" / "m3.mrc").write_bytes(b"")
    denoise(source, bundle, out)
    first = contents(out)
    assert first.keys() == set(WRITTEN)
    merge_results([out])
    merged = contents(out)
    tables = ("denoised.star", "failed.star")
    assert [merged[name] for name in tables] == [first[name] for name in tables]
    # The source table is gone, and what was written is damaged or deleted: the ledger knows it all.
    source.unlink()
    for spoil in (clear, lambda folder: [(folder / name).write_text("damaged") for name in WRITTEN]):
        spoil(out)
        merge_results([out])
        assert contents(out) == merged
    assert json.loads(merged["summary.json"])["denoised"] == 4
    assert len(merged["report.html"]) > 0.9 * len(first["report.html"]), "the pictures are there again"


def test_run_that_finds_all_done_writes_the_same_tables(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(4), identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=PLAIN)
    first = (out / "denoised.star").read_bytes()
    clear(out)
    again = denoise(source, bundle, out, options=PLAIN)
    assert (again.denoised, again.already_done, again.listed) == (0, 4, 4)
    assert (out / "denoised.star").read_bytes() == first
    # The ledger is lost, too: the labels in the outputs say what is done.
    clear(out)
    shutil.rmtree(out / "ledger")
    again = denoise(source, bundle, out, options=PLAIN)
    assert (again.denoised, again.already_done, again.listed) == (0, 4, 4)
    assert (out / "denoised.star").read_bytes() == first


def test_repeated_names_are_refused_and_listed_as_often(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    source.write_text(source.read_text() + "job/mics/m1.mrc 1 17000 16000.0 10.0 4.0\n")
    for given in (source, out / "failed.star"):  # trying them again does not choose one
        summary = denoise(given, bundle, out, options=PLAIN)
        assert list(summary.failures) == ["job/mics/m1.mrc"]
        assert "2 rows of the table have the same output" in summary.failures["job/mics/m1.mrc"]
        assert listed(out / "denoised.star") == ["m0.mrc", "m2.mrc"]
        defocus = starfile.read(out / "failed.star")["micrographs"]["rlnDefocusU"]
        assert list(defocus) == [15001.5, 17000]


def second_session(tmp_path: Path, column: str = "") -> Path:
    """Another table with one micrograph, of a second optics group and perhaps with a column more."""
    (tmp_path / "job" / "day2").mkdir()
    with mrcfile.new(tmp_path / "job" / "day2" / "n0.mrc") as mrc:
        mrc.set_data(band_limited(7))
        mrc.voxel_size = 1.5
    head = STAR.replace("opticsGroup1 1 300.0 2.7 0.1 2.0", "opticsGroup1 1 200.0 2.7 0.1 1.5")
    (tmp_path / "day2.star").write_text(f"{head}{column}job/day2/n0.mrc 1 9000 8900.0 30.0 3.5{' 7' * bool(column)}\n")
    return tmp_path / "day2.star"


def test_two_tables_in_one_folder_are_listed_together(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, out = identity_bundle(max_resolution=12.0), tmp_path / "out"
    denoise(table(2), bundle, out, options=PLAIN)
    summary = denoise(second_session(tmp_path), bundle, out, options=PLAIN)
    assert (summary.denoised, summary.listed, summary.exit_code) == (1, 3, 0)
    found = starfile.read(out / "denoised.star")
    assert [Path(name).name for name in found["micrographs"]["rlnMicrographName"]] == ["m0.mrc", "m1.mrc", "n0.mrc"]
    voltage = dict(zip(found["optics"]["rlnOpticsGroup"], found["optics"]["rlnVoltage"], strict=True))
    assert [voltage[group] for group in found["micrographs"]["rlnOpticsGroup"]] == [300, 300, 200]
    (out / "job" / "day2" / "n0.mrc").unlink()
    assert merge_results([out]).summary["listed"] == 2
    assert listed(out / "denoised.star") == ["m0.mrc", "m1.mrc"]


def test_tables_of_other_columns_are_listed_beside_each_other(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, out = identity_bundle(max_resolution=12.0), tmp_path / "out"
    denoise(table(2), bundle, out, options=PLAIN)
    summary = denoise(second_session(tmp_path, "_rlnCtfFigureOfMerit #7\n"), bundle, out, options=PLAIN)
    assert (summary.denoised, summary.listed) == (1, 3)
    assert summary.notes["denoised.star"] == ("source tables with other columns are listed in denoised-2.star",)
    assert listed(out / "denoised.star") == ["m0.mrc", "m1.mrc"]
    assert listed(out / "denoised-2.star") == ["n0.mrc"]
    (out / "job" / "day2" / "n0.mrc").unlink()
    merge_results([out])
    assert not (out / "denoised-2.star").exists()


def test_failed_micrographs_of_merged_folders_are_tried_again_where_they_were_merged(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, together = table(4), identity_bundle(), tmp_path / "all"
    mics = tmp_path / "job" / "mics"
    (mics / "m1.mrc").rename(tmp_path / "m1.mrc")
    for index in (1, 2):
        denoise(source, bundle, tmp_path / f"node{index}", options=PLAIN, shard=Shard(index, 2))
        assert not (tmp_path / f"node{index}" / "denoised.star").exists(), "shards only write the ledger"
    merged = merge_results([tmp_path / "node1", tmp_path / "node2"], together)
    assert (merged.summary["listed"], merged.exit_code) == (3, 1)
    (tmp_path / "m1.mrc").rename(mics / "m1.mrc")
    summary = denoise(together / "failed.star", bundle, together, options=PLAIN)
    assert (summary.denoised, summary.listed, summary.exit_code) == (1, 4, 0)
    assert listed(together / "denoised.star") == [f"m{number}.mrc" for number in range(4)]


TABLE = """
data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographPixelSize
{groups}

data_micrographs

loop_
{labels}
{rows}
"""
LABELS = "_rlnMicrographName\n_rlnOpticsGroup\n_rlnDefocusU"


def document(tmp_path: Path, name: str, groups: str, rows: str, labels: str = LABELS) -> StarDocument:
    (tmp_path / name).write_text(TABLE.format(groups=groups, rows=rows, labels=labels))
    return StarDocument.read(tmp_path / name)


def test_rows_follow_and_groups_are_matched_by_content(tmp_path: Path) -> None:
    first = document(tmp_path, "a.star", "one 1 1.0\ntwo 2 0.5", "a.mrc 1 10000.50\nb.mrc 2 11000")
    other = document(
        tmp_path, "b.star", "two 1 0.5\nthree 2 0.8", "12000 'c c.mrc' 1\n13000 d.mrc 2",
        "_rlnDefocusU\n_rlnMicrographName\n_rlnOpticsGroup",
    )  # fmt: skip
    (whole,) = join_tables([first, other])
    whole.write(tmp_path / "joined.star")
    joined = starfile.read(tmp_path / "joined.star")
    pixel_size = dict(zip(joined["optics"]["rlnOpticsGroup"], joined["optics"]["rlnMicrographPixelSize"], strict=True))
    rows = joined["micrographs"]
    assert list(rows["rlnMicrographName"]) == ["a.mrc", "b.mrc", "c c.mrc", "d.mrc"]
    assert list(rows["rlnDefocusU"]) == [10000.5, 11000, 12000, 13000]
    assert [pixel_size[group] for group in rows["rlnOpticsGroup"]] == [1.0, 0.5, 0.5, 0.8]
    assert "10000.50" in (tmp_path / "joined.star").read_text()


def test_document_may_lose_rows_before_and_gain_more_after(tmp_path: Path) -> None:
    first = document(tmp_path, "a.star", "one 1 1.0", "a.mrc 1 1\nb.mrc 1 2\nc.mrc 1 3")
    first.keep_rows(next(table for table in first.tables if table.block == "micrographs"), [0, 1])
    others = [document(tmp_path, f"{name}.star", "one 1 1.0", f"{name}.mrc 1 4") for name in "de"]
    (whole,) = join_tables([first, *others])
    whole.write(tmp_path / "joined.star")
    joined = starfile.read(tmp_path / "joined.star", always_dict=True)
    assert list(joined["micrographs"]["rlnMicrographName"]) == ["a.mrc", "b.mrc", "d.mrc", "e.mrc"]
    assert len(joined["optics"]) == 1


def test_tables_with_other_columns_stay_apart(tmp_path: Path) -> None:
    first = document(tmp_path, "a.star", "one 1 1.0", "a.mrc 1 1")
    other = document(tmp_path, "b.star", "one 1 1.0", "b.mrc 1", "_rlnMicrographName\n_rlnOpticsGroup")
    assert join_tables([first, other]) == [first, other]
