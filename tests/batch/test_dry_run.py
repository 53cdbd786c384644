"""A dry run tells what the run then does, and writes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.dry_run import forecast
from n2n_deploy.batch.request import Request, Shard

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, MakeTable

PLAIN = DenoiseOptions(report=False, lanes=1)


def test_forecast_agrees_with_the_run(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(6), identity_bundle(), tmp_path / "out"
    denoise(source, bundle, out, options=PLAIN, shard=Shard(1, 3))
    os.truncate(tmp_path / "job" / "mics" / "m5.mrc", 3000)
    before = sorted(out.rglob("*"))
    found = forecast(Request.open(source, bundle, out, PLAIN))
    told = found.as_dict()
    assert sorted(out.rglob("*")) == before
    assert (told["to_do"], told["done"], told["refused"], found.exit_code) == (3, 2, 1, 1)
    assert "cut short" in told["reasons"]["job/mics/m5.mrc"]
    assert told["disk_needed"] == 3 * (1024 + 4 * SHAPE[0] * SHAPE[1])
    (kind,) = told["kinds"]
    assert (kind["shape"], kind["pixel_size"], kind["count"], kind["tiles"]) == (list(SHAPE), PIXEL_SIZE, 3, 1)
    assert kind["seconds_each"] > 0
    assert told["seconds_expected"] == pytest.approx(3 * found.kinds[0].seconds, abs=0.1)
    summary = denoise(source, bundle, out, options=PLAIN)
    assert (summary.denoised, summary.already_done, len(summary.failures)) == (3, 2, 1)
    written = sum(path.stat().st_size for path in out.rglob("*.mrc"))
    assert written == 5 * (1024 + 4 * SHAPE[0] * SHAPE[1])


def test_forecast_tells_what_would_stop_the_run_and_the_exit_code(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, bundle = table(2), identity_bundle()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    found = forecast(Request.open(source, bundle, tmp_path / "out", PLAIN))
    assert found.exit_code == 3
    assert "make room" in str(found.obstacle)


def test_dry_run_on_the_command_line(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "n2n_deploy", "denoise", table(2), identity_bundle(), "-o", tmp_path / "out"]
    run = [*map(str, command), "--dry-run"]
    shown = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2 of 232×192 px" in shown.stdout
    told = json.loads(subprocess.run([*run, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["to_do"] == 2
    assert not (tmp_path / "out").exists()
