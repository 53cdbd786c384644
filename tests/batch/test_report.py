"""The report of a batch: all rows with their pictures, also of a resumed run; it never stops the work."""

import html
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2n_deploy import DataError, DenoiseOptions, denoise
from n2n_deploy.batch.ledger_writer import LedgerWriter
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.report import write_batch_report
from n2n_deploy.batch.request import Shard
from n2n_deploy.batch.standing import Standing
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.report import views
from n2n_deploy.report.entries import MicrographEntry, RunInfo

from .conftest import MakeBundle, MakeTable, ledger

pytest.importorskip("jinja2", reason="jinja2 is not installed (pip install 'n2n-deploy[report]')")


def blocks(report: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The table's rows and what each opens, as the page holds them."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', report.read_text(), re.DOTALL)
    content = {name: json.loads(text) for name, text in found}
    rows = content.pop("rows")
    return rows, [content[f"entry-{index}"] for index in range(len(rows))]


def test_resumed_run_reports_all_micrographs(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
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


def test_retried_micrographs_are_reported_with_all_others(
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


def test_shards_have_one_report_and_one_ledger(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
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

    assert sorted(line["status"] for line in ledger(out)) == ["denoised"] * 6 + ["refused"]
    assert len({line["run"] for line in ledger(out)}) == 3
    # The failed one, tried again over the whole folder, stays done whoever merges again.
    (tmp_path / "m4.mrc").rename(mics / "m4.mrc")
    denoise(out / "failed.star", bundle, out)
    merged = merge_results([out])
    assert (merged.exit_code, merged.summary["listed"], merged.summary["failures"]) == (0, 7, {})
    assert not (out / "failed.star").exists()
    assert sorted(row["status"] for row in blocks(out / "report.html")[0]) == ["denoised"] * 7
    statuses = [line["status"] for line in ledger(out) if line["micrograph"] == "job/mics/m4.mrc"]
    assert sorted(statuses) == ["denoised", "refused", "to do"]


def test_page_shows_the_command_quoted_for_a_shell(
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


def test_no_report_if_unwanted_or_impossible(
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
        assert not any("entry" in line for line in ledger(folder))


def test_micrographs_are_denoised_although_the_report_cannot_be_drawn(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no pictures today")

    monkeypatch.setattr(views, "view", broken)
    summary = denoise(table(2), identity_bundle(), tmp_path / "out")
    assert (summary.denoised, summary.exit_code) == (2, 0)
    assert all("no pictures for the report: ValueError" in notes[-1] for notes in summary.notes.values())
    assert [row["status"] for row in blocks(tmp_path / "out" / "report.html")[0]] == ["denoised"] * 2


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    """A page of more than 6 MB is written from entries that are read as they are needed, within a tenth of that."""
    rng = np.random.default_rng(0)
    count, header = 150, {"ledger": 1, "time": "2026-01-01T00:00:00.000000+00:00", "base": "/"}
    noisy = rng.standard_normal((320, 320)).astype(np.float32)
    drawn = views.view(noisy, noisy, (3.0, 3.0), Optics(1.0), None, 60_000)
    (tmp_path / "mics").mkdir()
    with LedgerWriter(tmp_path) as writer:
        writer.add(header)
        for index in range(count):
            name = f"mics/{index}.mrc"
            (tmp_path / name).touch()
            entry = json.dumps(MicrographEntry(name, "denoised", views=drawn).as_json())
            line = {"micrograph": name, "status": "denoised", "work": "w", "time": header["time"], "shape": [320, 320]}
            writer.add(line, entry)
    standings = Standing.of(tmp_path)

    tracemalloc.start()
    write_batch_report(tmp_path, RunInfo("many"), standings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "report.html").stat().st_size
    assert len(blocks(tmp_path / "report.html")[1]) == count
    assert size > 6e6
    assert peak < size / 10
