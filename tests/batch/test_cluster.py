"""Batches distributed over worker processes by Dask give the same results, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np
import psutil
import pytest
import starfile

from n2n_deploy import DenoiseOptions, HostError, UsageError, denoise
from n2n_deploy.batch.cluster import ClusterWorkers
from n2n_deploy.batch.denoise import Progress
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.request import Request

from .conftest import MakeBundle, MakeTable, band_limited, ledger

distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")

PLAIN = DenoiseOptions(report=False, lanes=1, threads=1)


def workers() -> list[psutil.Process]:
    """The worker processes of this process, and not their nannies' helpers."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def check_outputs(out: Path, count: int) -> None:
    for number in range(count):
        path = out / "job" / "mics" / f"m{number}.mrc"
        assert mrcfile.validate(path)
        np.testing.assert_allclose(mrcfile.read(path), band_limited(number), atol=0.05)
    assert len(starfile.read(out / "denoised.star", always_dict=True)["micrographs"]) == count


def test_batch_is_complete_although_a_worker_is_killed(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(60), identity_bundle()
    (tmp_path / "job" / "mics" / "m7.mrc").write_bytes(b"no micrograph")
    killed: list[int] = []

    def progress(event: Progress) -> None:
        if event.finished == 5:
            victim = workers()[0]
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    summary = denoise(source, bundle, tmp_path / "out", options=PLAIN, cluster="local:2", progress=progress)
    assert killed
    assert (summary.denoised, list(summary.failures)) == (59, ["job/mics/m7.mrc"])
    (tmp_path / "job" / "mics" / "m7.mrc").unlink()
    lines = ledger(tmp_path / "out")
    assert sorted(line["micrograph"] for line in lines) == sorted(f"job/mics/m{number}.mrc" for number in range(60))
    assert all(line["host"] for line in lines if line["status"] == "denoised")
    names = starfile.read(tmp_path / "out" / "denoised.star")["micrographs"]["rlnMicrographName"]
    assert len(names) == 59
    assert not workers()


def test_running_scheduler_is_used_and_left_running(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(6), identity_bundle()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
    ) as own:
        summary = denoise(source, bundle, tmp_path / "out", options=PLAIN, cluster=own.scheduler_address)
        assert summary.denoised == 6
        assert len(own.workers) == 1
    check_outputs(tmp_path / "out", 6)


def test_job_that_kills_its_workers_fails_alone_and_jobs_are_submitted_a_few_at_a_time(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    def fatal(job: Job, *_: object) -> None:
        if job.micrograph.name.endswith("m3.mrc"):
            os.kill(os.getpid(), signal.SIGKILL)

    pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    dask = pytest.importorskip("dask")
    request = Request.open(table(30), identity_bundle(), tmp_path / "out", PLAIN)
    records = request.read()
    plan = request.plan(records.micrographs, records, request.layout(records, request.ledger()))
    taken = 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for taken, job in enumerate(plan.jobs, 1):  # noqa: B007
            yield job

    said: list[str] = []
    workers = ClusterWorkers(
        "local:2",
        request.bundle,
        PLAIN,
        fatal,  # type: ignore[arg-type]
        logs=tmp_path,
        say=said.append,
    )
    outcomes = []
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), workers:
        for outcome in workers.run(jobs(), threading.Event()):
            outcomes.append(outcome)
            assert taken - len(outcomes) <= 4
    assert "http://" in said[0]
    (lost,) = [outcome for outcome in outcomes if outcome.error]
    assert lost.job.micrograph.name == "job/mics/m3.mrc"
    assert "workers died" in str(lost.error)
    assert len(outcomes) == 30


def test_invalid_cluster_spec_is_refused(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    for spec in ("local", "local:0", "8", "http://x"):
        with pytest.raises(UsageError, match="expected local:N"):
            denoise(table(1) if spec == "local" else tmp_path / "micrographs.star", identity_bundle(), tmp_path / "out",
                    options=PLAIN, cluster=spec)  # fmt: skip


def test_rejection_by_slurm_is_reported_at_once(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'sbatch: error: Invalid account' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(
        HostError, match="slurm:2 cannot be used: sbatch: error: Invalid account .*jobqueue.yaml"
    ) as told:
        denoise(table(1), identity_bundle(), tmp_path / "out", options=PLAIN, cluster="slurm:2")
    assert "\n" not in str(told.value)


def test_ctrl_c_to_all_processes_ends_the_run_cleanly(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "n2n_deploy", "denoise", table(300), identity_bundle(), "-o", tmp_path / "out",
               "--cluster", "local:2", "--lanes", 1, "--no-report"]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE)
    mics = tmp_path / "out" / "job" / "mics"
    deadline = time.monotonic() + 120
    while not (mics.is_dir() and len(list(mics.glob("*.mrc"))) > 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    written = sorted(mics.glob("*.mrc"))
    assert 0 < len(written) < 300
    assert all(mrcfile.validate(path) for path in written)
    assert len(starfile.read(tmp_path / "out" / "denoised.star")["micrographs"]) == len(written)
