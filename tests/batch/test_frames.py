"""Tables as pandas DataFrames into `denoise` and out of it: the same work as for the STAR file that holds them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas
import pytest
import starfile

from n2n_deploy import DataError, DenoiseOptions, NamingOptions, OpticsOptions, UsageError, denoise, read_micrographs
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Shard

from .conftest import MakeBundle, MakeTable, listed

PLAIN = DenoiseOptions(report=False, lanes=1)


def test_frames_are_denoised_as_their_table_is(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, bundle = table(4), identity_bundle(phase_flip=True)
    monkeypatch.chdir(tmp_path)
    blocks = starfile.read(source)
    whole = denoise(source, bundle, "whole", options=PLAIN)
    blocks["micrographs"] = blocks["micrographs"].query("rlnCtfMaxResolution > 3.2")
    before = blocks["micrographs"].copy()
    some = denoise(blocks, bundle, "some", options=PLAIN)
    pandas.testing.assert_frame_equal(blocks["micrographs"], before)
    assert listed(tmp_path / "some" / "denoised.star") == ["m2.mrc", "m3.mrc"]
    one, other = whole.denoised_tables(), some.denoised_tables()
    images = [tables["micrographs"]["rlnMicrographName"].tolist()[-2:] for tables in (one, other)]
    for first, second in zip(*images, strict=True):
        assert first.removeprefix("whole") == second.removeprefix("some")
        assert np.array_equal(mrcfile.read(first), mrcfile.read(second))
    pandas.testing.assert_frame_equal(other["optics"], one["optics"])
    kept = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]
    rows = one["micrographs"][kept].iloc[2:].reset_index(drop=True)
    pandas.testing.assert_frame_equal(other["micrographs"][kept], rows)


def test_the_same_frames_again_are_recognised_and_shards_are_merged(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    blocks, bundle, naming = read_micrographs(table(3)), identity_bundle(), NamingOptions(project=tmp_path)
    for number in (1, 2):
        shard = denoise(blocks, bundle, tmp_path / "out", options=PLAIN, naming=naming, shard=Shard(number, 2))
        assert shard.denoised == number
    assert merge_results([tmp_path / "out"]).summary["denoised"] == 3
    again = denoise(read_micrographs(tmp_path / "micrographs.star"), bundle, tmp_path / "out", naming=naming)
    assert (again.denoised, again.already_done) == (0, 3)
    assert len(list((tmp_path / "out" / "ledger" / "tables").iterdir())) == 1


def test_failures_are_a_frame(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    blocks = read_micrographs(table(3))
    blocks["micrographs"].loc[2, "rlnDefocusU"] = np.nan
    (tmp_path / "job" / "mics" / "m0.mrc").write_bytes(b"")
    options = {"options": PLAIN, "naming": NamingOptions(project=tmp_path)}
    summary = denoise(blocks, identity_bundle(phase_flip=True), tmp_path / "out", **options)
    failed = summary.failed_table()
    assert failed["rlnMicrographName"].tolist() == ["job/mics/m0.mrc", "job/mics/m2.mrc"]
    assert "m0.mrc" in failed["reason"][0]
    assert "DataFrame: row 3, job/mics/m2.mrc: rlnDefocusU is nan" in failed["reason"][1]
    assert starfile.read(tmp_path / "out" / "failed.star")["micrographs"]["rlnMicrographName"].tolist() == [
        *failed["rlnMicrographName"]
    ]
    good = denoise(
        {**blocks, "micrographs": blocks["micrographs"].iloc[[1]]}, identity_bundle(), tmp_path / "good", **options
    )
    assert (len(good.failed_table()), [*good.failed_table()]) == (0, ["rlnMicrographName", "reason"])


def test_one_frame_is_the_micrographs_alone(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    frame, naming = read_micrographs(table(2))["micrographs"], NamingOptions(project=tmp_path)
    with pytest.raises(DataError, match="DataFrame: row 1: has no rlnVoltage"):
        denoise(frame, identity_bundle(phase_flip=True), tmp_path / "out", naming=naming)
    assert not (tmp_path / "out").exists()
    frame = frame.drop(columns="rlnOpticsGroup")
    optics = OpticsOptions(pixel_size=2.0, voltage=300, spherical_aberration=2.7, amplitude_contrast=0.1)
    summary = denoise(
        frame, identity_bundle(phase_flip=True), tmp_path / "out", options=PLAIN, naming=naming, optics=optics
    )
    assert summary.denoised == 2


def test_a_star_file_is_denoised_without_pandas(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    """Loading it takes a quarter of a second and tens of megabytes, which only its users need to pay."""
    code = (
        "import sys, n2n_deploy; n2n_deploy.denoise(*sys.argv[1:]);"
        "print(sorted({'pandas', 'pyarrow', 'starfile'} & set(sys.modules)))"
    )
    (tmp_path / "empty.mrc").touch()
    source = table(2)
    source.write_text(source.read_text() + "empty.mrc 1 15000.0 14900.0 30.0 3.0\n")
    command = [sys.executable, "-c", code, source, identity_bundle(), tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "out" / "failed.star").exists()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, UsageError, "micrographs: is a NoneType, expected the path of a table"),
        (pandas.DataFrame({"name": ["m.mrc"]}), DataError, "DataFrame: has data_micrographs and no rlnMicrographName"),
        (pandas.DataFrame({"rlnMicrographName": []}), DataError, "DataFrame: data_micrographs has no rows"),
    ],
)
def test_what_lists_no_micrographs_is_refused(
    source: Any, error: type[Exception], message: str, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        denoise(source, identity_bundle(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
