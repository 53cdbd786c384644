"""DataFrames as STAR documents, and new STAR text: read again by gemmi, value by value."""

from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas
import pytest

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.star_frames import document_of, read_blocks, star_text


def gemmi_column(document: StarDocument, block: str, label: str) -> list[str]:
    """The values of a column as gemmi reads them, without quotes."""
    column = gemmi.cif.read_string(document.text()).find_block(block).find_loop(f"_{label}")
    return [column.str(index) for index in range(len(column))]


def test_numbers_keep_their_values() -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.normal(size=500), 10.0 ** rng.uniform(-30, 30, 500), [0.83, 1e-7, 300.0]])
    frame = pandas.DataFrame({"rlnDefocusU": numbers, "rlnVoltage": numbers.astype(np.float32)})
    document = document_of(frame)
    assert [*map(float, gemmi_column(document, "micrographs", "rlnDefocusU"))] == numbers.tolist()
    single = gemmi_column(document, "micrographs", "rlnVoltage")
    assert [*map(np.float32, single)] == numbers.astype(np.float32).tolist()
    assert single[-3] == "0.83"  # and not 0.8299999833
    frame = pandas.DataFrame({"rlnOpticsGroup": [1, 2], "rlnCtfDataArePhaseFlipped": [True, False]})
    document = document_of({"optics": frame})
    assert gemmi_column(document, "optics", "rlnOpticsGroup") == ["1", "2"]
    assert gemmi_column(document, "optics", "rlnCtfDataArePhaseFlipped") == ["1", "0"]


def test_text_keeps_its_digits_spaces_and_first_characters() -> None:
    names = ["a b.mrc", "#1.mrc", "_1.mrc", "'1'.mrc", "0.830000", "007", "; ", Path("m/1.mrc")]
    document = document_of(pandas.DataFrame({"rlnMicrographName": names, "rlnVoltage": 300}))
    assert gemmi_column(document, "micrographs", "rlnMicrographName") == [str(name) for name in names]
    (table,) = document.tables
    assert document.columns(table, table.labels)["rlnMicrographName"] == [str(name) for name in names]


def test_missing_values_are_what_relion_writes() -> None:
    frame = pandas.DataFrame(
        {"rlnMicrographNameEven": ["e.mrc", None], "rlnCtfMaxResolution": [4.5, np.nan], "rlnVoltage": [300, None]}
    )
    frame["rlnVoltage"] = frame["rlnVoltage"].astype("Int64")
    document = document_of(frame)
    assert gemmi_column(document, "micrographs", "rlnMicrographNameEven") == ["e.mrc", "None"]
    assert gemmi_column(document, "micrographs", "rlnCtfMaxResolution") == ["4.5", "nan"]
    assert gemmi_column(document, "micrographs", "rlnVoltage") == ["300", "nan"]


def test_blocks_keep_their_order_and_pairs_their_values() -> None:
    blocks = {
        "general": {"rlnTomoName": "TS 01", "rlnVoltage": 300, "rlnNote": ""},
        "optics": pandas.DataFrame({"rlnOpticsGroup": [1]}),
        "micrographs": pandas.DataFrame({"rlnMicrographName": ["m.mrc"], "rlnOpticsGroup": 1}).iloc[[0, 0]],
    }
    document = document_of(blocks)
    read = gemmi.cif.read_string(document.text())
    assert [block.name for block in read] == [*blocks]
    assert gemmi.cif.as_string(read.find_block("general").find_value("_rlnTomoName")) == "TS 01"
    assert gemmi_column(document, "micrographs", "rlnMicrographName") == ["m.mrc", "m.mrc"]


def test_the_same_table_is_the_same_text() -> None:
    loops = ("micrographs", ["rlnMicrographName", "rlnDefocusU"], [["m.mrc", 0.5]]), ("empty", ["rlnVoltage"], [])
    text = star_text(*loops, float_format="%.6f")
    assert text == star_text(*loops, float_format="%.6f")
    assert "# version 30001\n" in text
    assert "m.mrc\t0.500000\n" in text
    assert "Created" not in text  # the time


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (5, UsageError, "is a int, expected the path of a table, MRC files, a DataFrame or a dict of DataFrames"),
        ({"micrographs": ["m.mrc"]}, UsageError, "'micrographs' is a list, expected a DataFrame for each block"),
        (pandas.DataFrame({"rlnMicrographName": ["a\tb.mrc"]}), DataError, "a value has a tab or a new line in it"),
        ({"data_ optics": pandas.DataFrame({"rlnOpticsGroup": [1]})}, DataError, "DataFrame: .*not valid STAR"),
    ],
)
def test_what_is_no_table_is_refused(frames: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        document_of(frames)


def test_a_file_that_starfile_cannot_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ragged.star"
    path.write_text("data_m\n\nloop_\n_rlnA #1\n_rlnB #2\n1 2\n1 2 3\n")
    with pytest.raises(DataError, match=r"ragged\.star: starfile cannot read it"):
        read_blocks(path)
