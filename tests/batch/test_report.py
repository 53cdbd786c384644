"""The report of a batch: all rows with their pictures, also of a run that goes on; never in the way of the work."""

import html
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2n_deploy import DataError, DenoiseOptions, denoise
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Shard
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.report.entries import MicrographEntry, RunInfo
from n2n_deploy.report.entry_store import EntryStore
from n2n_deploy.report.page import write_report
from n2n_deploy.report.views import view

from .conftest import MakeBundle, MakeTable

pytest.importorskip("jinja2", reason="jinja2 is not installed (pip install 'n2n-deploy[report]')")


def blocks(report: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The table's rows and what each opens, as the page holds them."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', report.read_text(), re.DOTALL)
    content = {name: json.loads(text) for name, text in found}
    rows = content.pop("rows")
    return rows, [content[f"entry-{index}"] for index in range(len(rows))]


def test_a_run_that_goes_on_reports_on_all_of_it(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(4), identity_bundle(), tmp_path / "out"
    mics = tmp_path / "job" / "mics"
    (mics / "m2.mrc").rename(tmp_path / "m2.mrc")
    first = denoise(source, bundle, out)
    assert first.report == out / "report.html"
    rows, _ = blocks(out / "report.html")
    assert [row["status"] for row in rows] == ["denoised", "denoised", "refused", "denoised"]
    (tmp_path / "m2.mrc").rename(mics / "m2.mrc")
    (out / "job" / "mics" / "m3.mrc").unlink()
    denoise(source, bundle, out)
    rows, entries = blocks(out / "report.html")
    assert [row["status"] for row in rows] == ["done before", "done before", "denoised", "denoised"]
    assert [row["name"] for row in rows] == [f"job/mics/m{number}.mrc" for number in range(4)]
    assert all(entry["views"]["pictures"]["denoised"] for entry in entries)
    # What the identity network keeps is all of it.
    assert [round(row["kept"], 3) for row in rows] == [100.0] * 4
    assert rows[0]["defocus"] == pytest.approx((15000.5 + 14900) / 2e4)


def test_what_is_tried_again_by_itself_is_reported_with_all_the_rest(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, bundle, out = table(4), identity_bundle(), tmp_path / "out"
    mics = tmp_path / "job" / "mics"
    (mics / "m1.mrc").rename(tmp_path / "m1.mrc")
    (mics / "m3.mrc").rename(tmp_path / "m3.mrc")
    denoise(source, bundle, out)
    whole = blocks(out / "report.html")[1]
    (tmp_path / "m1.mrc").rename(mics / "m1.mrc")
    denoise(out / "failed.star", bundle, out)
    rows, entries = blocks(out / "report.html")
    assert [row["name"] for row in rows] == [f"job/mics/m{number}.mrc" for number in range(4)]
    assert [row["status"] for row in rows] == ["done before", "denoised", "done before", "refused"]
    assert entries[0]["views"] == whole[0]["views"]
    # By its own option, with the whole table; an output that was taken away meanwhile is not told of any longer.
    (tmp_path / "m3.mrc").rename(mics / "m3.mrc")
    (out / "job" / "mics" / "m0.mrc").unlink()
    summary = denoise(source, bundle, out, retry=out / "failed.star")
    assert (summary.denoised, summary.listed, summary.exit_code) == (1, 3, 0)
    rows, entries = blocks(out / "report.html")
    assert [row["name"] for row in rows] == [f"job/mics/m{number}.mrc" for number in (1, 2, 3)]
    assert all(entry["views"] for entry in entries)
    with pytest.raises(DataError, match="cannot be read|not found"):
        denoise(source, bundle, out, retry=out / "failed.star")


def test_the_parts_of_a_job_have_one_report_and_one_log(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle, out = table(7), identity_bundle(), tmp_path / "out"
    mics = tmp_path / "job" / "mics"
    (mics / "m4.mrc").rename(tmp_path / "m4.mrc")
    for index in (3, 1):
        denoise(source, bundle, out, shard=Shard(index, 3))
    merged = merge_results([out])
    assert merged.summary["report"] == str(out / "report.html")
    assert [row["name"][-6:-4] for row in blocks(out / "report.html")[0]] == ["m0", "m1", "m4", "m5", "m6"]
    denoise(source, bundle, out, shard=Shard(2, 3))
    merge_results([out])
    rows, entries = blocks(out / "report.html")
    assert [row["name"] for row in rows] == [f"job/mics/m{number}.mrc" for number in range(7)]
    assert [row["status"] for row in rows] == ["denoised"] * 4 + ["refused"] + ["denoised"] * 2
    assert all(entry["views"]["pictures"]["denoised"] for entry in entries if entry["status"] == "denoised")
    assert "not found" in entries[4]["reason"]

    def log(folder: Path) -> list[str]:
        return (folder / "log.jsonl").read_text().splitlines()

    parts = [line for index in (1, 2, 3) for line in log(out / "shards" / f"{index}-of-3")]
    assert sorted(log(out)) == sorted(parts)
    # The failed one, tried again over the whole folder, stays done whoever merges again.
    (tmp_path / "m4.mrc").rename(mics / "m4.mrc")
    denoise(out / "failed.star", bundle, out)
    merged = merge_results([out])
    assert (merged.exit_code, merged.summary["listed"], merged.summary["failures"]) == (0, 7, {})
    assert not (out / "failed.star").exists()
    assert sorted(row["status"] for row in blocks(out / "report.html")[0]) == ["denoised"] * 7
    assert len(log(out)) == len(set(log(out))) == 8


def test_the_page_has_the_command_as_a_shell_takes_it(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, out = table(1), tmp_path / "out of <it's> first"
    asked = ["denoise", str(source), str(identity_bundle()), "-o", str(out), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "n2n_deploy", *asked], check=True, capture_output=True)
    (told,) = re.findall(r'<pre class="command"><code>(.*?)</code>', (out / "report.html").read_text(), re.DOTALL)
    assert shlex.split(html.unescape(told)) == ["python", "-m", "n2n_deploy", *asked]


def test_pictures_of_other_work_are_not_shown(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(1), identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out)
    denoise(source, bundle, out, options=DenoiseOptions(lowpass=30.0, on_exists="skip"))
    rows, entries = blocks(out / "report.html")
    assert [row["status"] for row in rows] == ["kept"]
    assert entries[0]["views"] is None
    assert "made by other work" in entries[0]["reason"]


def test_no_report_where_none_is_wanted_or_possible(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, bundle, out = table(1), identity_bundle(), tmp_path / "out"
    assert denoise(source, bundle, out, options=DenoiseOptions(report=False)).report is None
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name))
    summary = denoise(source, bundle, tmp_path / "other")
    assert (summary.denoised, summary.exit_code) == (1, 0)
    assert "jinja2 not installed" in str(summary.report)
    for folder in (out, tmp_path / "other"):
        assert not (folder / "report.html").exists()
        assert not (folder / ".report").exists()


def test_trouble_with_the_report_costs_no_micrograph(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, out = table(2), tmp_path / "out"
    out.mkdir()
    (out / ".report").write_text("a file where the folder should be")
    summary = denoise(source, identity_bundle(), out)
    assert (summary.denoised, summary.exit_code) == (2, 0)
    assert all("no pictures" in notes[-1] for notes in summary.notes.values())
    assert [row["status"] for row in blocks(out / "report.html")[0]] == ["denoised"] * 2


def test_a_store_gives_nothing_of_other_work_or_of_damaged_files(tmp_path: Path) -> None:
    store = EntryStore(tmp_path / "store")
    store.put("a/b.mrc", "work 1", MicrographEntry("b", "denoised", seconds=2.0))
    kept = store.get("a/b.mrc", "work 1")
    assert kept is not None
    assert (kept.name, kept.seconds) == ("b", 2.0)
    assert store.get("a/b.mrc", "work 2") is None
    assert store.get("b.mrc", "work 1") is None
    (file,) = (tmp_path / "store").iterdir()
    content = file.read_bytes()
    for damaged in (b"", content[:40], content[:30] + b"\xff\xff" + content[32:], b"{}"):
        file.write_bytes(damaged)
        assert store.get("a/b.mrc", "work 1") is None


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    """A page of more than 6 MB is written from entries that are read as they are needed, within a tenth of that."""
    rng = np.random.default_rng(0)
    store, count = EntryStore(tmp_path / "store"), 150
    noisy = rng.standard_normal((320, 320)).astype(np.float32)
    views = view(noisy, noisy, (3.0, 3.0), Optics(1.0), None, 60_000)
    for index in range(count):
        store.put(str(index), "", MicrographEntry(str(index), "denoised", views=views))

    class Entries:
        def __iter__(self) -> Iterator[MicrographEntry]:
            for index in range(count):
                entry = store.get(str(index), "")
                assert entry is not None
                yield entry

    tracemalloc.start()
    write_report(tmp_path / "report.html", RunInfo("many"), Entries())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "report.html").stat().st_size
    assert size > 6e6
    assert peak < size / 10
