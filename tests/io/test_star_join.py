"""Joined tables hold the rows of both, as an independent reader sees them."""

from pathlib import Path

import pytest
import starfile

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.star_join import append_table

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
    append_table(first, other)
    first.write(tmp_path / "joined.star")
    joined = starfile.read(tmp_path / "joined.star")
    pixel_size = dict(zip(joined["optics"]["rlnOpticsGroup"], joined["optics"]["rlnMicrographPixelSize"], strict=True))
    rows = joined["micrographs"]
    assert list(rows["rlnMicrographName"]) == ["a.mrc", "b.mrc", "c c.mrc", "d.mrc"]
    assert list(rows["rlnDefocusU"]) == [10000.5, 11000, 12000, 13000]
    assert [pixel_size[group] for group in rows["rlnOpticsGroup"]] == [1.0, 0.5, 0.5, 0.8]
    assert "10000.50" in (tmp_path / "joined.star").read_text()


def test_a_document_may_lose_rows_before_and_gain_more_after(tmp_path: Path) -> None:
    first = document(tmp_path, "a.star", "one 1 1.0", "a.mrc 1 1\nb.mrc 1 2\nc.mrc 1 3")
    table = next(table for table in first.tables if table.block == "micrographs")
    first.keep_rows(table, [0, 1])
    for name in "de":
        append_table(first, document(tmp_path, f"{name}.star", "one 1 1.0", f"{name}.mrc 1 4"))
    first.write(tmp_path / "joined.star")
    joined = starfile.read(tmp_path / "joined.star", always_dict=True)
    assert list(joined["micrographs"]["rlnMicrographName"]) == ["a.mrc", "b.mrc", "d.mrc", "e.mrc"]
    assert len(joined["optics"]) == 1


def test_tables_with_other_columns_are_refused(tmp_path: Path) -> None:
    first = document(tmp_path, "a.star", "one 1 1.0", "a.mrc 1 1")
    other = document(tmp_path, "b.star", "one 1 1.0", "b.mrc 1", "_rlnMicrographName\n_rlnOpticsGroup")
    with pytest.raises(DataError, match="rlnDefocusU"):
        append_table(first, other)
