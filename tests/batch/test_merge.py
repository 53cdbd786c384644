"""Shards of a batch, and their merged account."""

import json
from pathlib import Path

import mrcfile
import pytest
import starfile

from n2n_deploy import DataError, DenoiseOptions, UsageError, denoise
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Shard

from .conftest import MakeBundle, MakeTable

PLAIN = DenoiseOptions(report=False, lanes=1)


def names(path: Path) -> list[str]:
    return [Path(name).name for name in starfile.read(path, always_dict=True)["micrographs"]["rlnMicrographName"]]


@pytest.mark.parametrize(("rows", "count"), [(10, 3), (7, 7), (2, 5), (100, 8)])
def test_shards_are_the_table_in_order(rows: int, count: int) -> None:
    table = list(range(rows))
    parts = [Shard(index, count).of(table) for index in range(1, count + 1)]  # type: ignore[arg-type]
    assert [row for part in parts for row in part] == table
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="i/n"):
        Shard.parse(text)


def test_merged_shards_equal_the_whole_batch(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(10), identity_bundle(), tmp_path / "out"
    whole = denoise(source, bundle, tmp_path / "whole", options=PLAIN)
    (tmp_path / "job" / "mics" / "m4.mrc").write_bytes(b"")
    for index in (3, 1, 2):
        summary = denoise(source, bundle, out, options=PLAIN, shard=Shard(index, 3))
        assert summary.denoised + len(summary.failures) in (3, 4)
        if index == 1:
            merged = merge_results([out])
            assert (merged.missing, merged.exit_code) == (["2-of-3"], 1)
    merged = merge_results([out])
    assert (merged.missing, merged.summary["denoised"], merged.summary["listed"], merged.exit_code) == ([], 9, 9, 1)
    assert names(out / "denoised.star") == [f"m{number}.mrc" for number in range(10) if number != 4]
    assert names(out / "failed.star") == ["m4.mrc"]
    ours, theirs = starfile.read(out / "denoised.star"), starfile.read(whole.table)
    assert ours["optics"].equals(theirs["optics"])
    assert list(ours["micrographs"]["rlnDefocusU"]) == [15000.5 + number for number in range(10) if number != 4]
    # The failed one, made whole and tried again by itself, completes the account.
    with mrcfile.new(tmp_path / "job" / "mics" / "m4.mrc", overwrite=True) as mrc:
        mrc.set_data(mrcfile.read(tmp_path / "job" / "mics" / "m3.mrc"))
        mrc.voxel_size = 2.0
    retried = denoise(out / "failed.star", bundle, out, options=PLAIN)
    assert (retried.denoised, retried.listed, retried.exit_code) == (1, 10, 0)
    assert not (out / "failed.star").exists()


def test_several_folders_are_merged_into_another(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = table(6), identity_bundle()
    for index in (1, 2):
        denoise(source, bundle, tmp_path / f"node{index}", options=PLAIN, shard=Shard(index, 2))
    folders = [tmp_path / "node1", tmp_path / "node2"]
    with pytest.raises(UsageError, match="-o"):
        merge_results(folders)
    merged = merge_results(folders, tmp_path / "all")
    assert (merged.missing, merged.exit_code) == ([], 0)
    assert merge_results(folders[:1]).missing == ["2-of-2"]
    listed = starfile.read(tmp_path / "all" / "denoised.star")["micrographs"]["rlnMicrographName"]
    assert all((tmp_path / name).is_file() or Path(name).is_file() for name in listed)
    assert len(listed) == 6
    assert json.loads((tmp_path / "all" / "summary.json").read_text())["denoised"] == 6


def test_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no ledger; give the output folders"):
        merge_results([tmp_path])
