"""Batches on a real SLURM of one node, on this machine: job arrays, and Dask's workers as jobs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import pytest
import starfile

from .conftest import MakeBundle, MakeTable

SCRIPT = Path(__file__).with_name("slurm_loopback.sh")
PROGRAM = f"{sys.executable} -m n2n_deploy"

ARRAY = """#!/bin/bash
#SBATCH --array=1-3
#SBATCH --cpus-per-task=1
#SBATCH --output={folder}/array-%a.log
{program} denoise {source} {bundle} -o {out} --lanes 1 --no-report --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM that runs on this machine for as long as the tests do."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SLURM is not installed, {missing[0]} is missing (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("a SLURM for tests needs root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False, timeout=120)
    if started.returncode:
        pytest.skip(f"SLURM does not start here: {' '.join((started.stdout + started.stderr).split())}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run(["scancel", "--full", "--user", "root"], check=False, timeout=60)
    subprocess.run([SCRIPT, "stop", folder], check=False, timeout=60)
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before


def jobs() -> list[str]:
    """Numbers of the jobs that run now."""
    command = ["squeue", "--noheader", "--format=%A", "--states=RUNNING"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.usefixtures("slurm")
def test_job_array_denoises_the_shards_of_a_table(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    text = ARRAY.format(folder=tmp_path, program=PROGRAM, source=table(7), bundle=identity_bundle(), out=out)
    (tmp_path / "array.sh").write_text(text)
    command = ["sbatch", "--wait", tmp_path / "array.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path)
    logs = "".join(path.read_text() for path in tmp_path.glob("array-*.log"))
    assert done.returncode == 0, done.stderr + logs
    merged = subprocess.run([*PROGRAM.split(), "merge-results", out], capture_output=True, text=True, check=False)
    assert merged.returncode == 0, merged.stderr + logs
    names = starfile.read(out / "denoised.star")["micrographs"]["rlnMicrographName"]
    assert [Path(name).name for name in names] == [f"m{number}.mrc" for number in range(7)]
    assert all(mrcfile.validate(path) for path in out.rglob("*.mrc"))


@pytest.mark.usefixtures("slurm")
def test_a_job_plans_with_the_memory_that_it_asked_for(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    # SLURM kills here what takes more, whatever the node has.
    out, ask = tmp_path / "out", "from n2n_deploy.device.memory import available_memory; print(available_memory())"
    script = f"#!/bin/bash\n{sys.executable} -c '{ask}'\n{PROGRAM} denoise {table(3)} {identity_bundle()} -o {out}\n"
    (tmp_path / "job.sh").write_text(script)
    log = tmp_path / "job.log"
    command = ["sbatch", "--wait", "--cpus-per-task=1", f"--output={log}"]
    for memory in ("--mem=1500", "--mem-per-cpu=1500"):
        done = subprocess.run(
            [*command, memory, tmp_path / "job.sh"], capture_output=True, text=True, check=False, timeout=240
        )
        said = log.read_text()
        assert done.returncode == 0, done.stderr + said
        assert 1000 * 2**20 < int(said.splitlines()[0]) < 1500 * 2**20
    assert len(list(out.rglob("m*.mrc"))) == 3


@pytest.mark.usefixtures("slurm")
def test_slurm_kills_here_what_takes_more_than_it_asked_for(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(
        f"#!/bin/bash\n{sys.executable} -c 'import time; held = b\"1\" * 400 * 2**20; time.sleep(60)'\n"
    )
    command = ["sbatch", "--wait", "--mem=200", f"--output={tmp_path / 'job.log'}", tmp_path / "job.sh"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=240).returncode != 0


@pytest.mark.usefixtures("slurm")
def test_dask_replaces_a_cancelled_slurm_job(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (the extra cluster)")
    out, settings = tmp_path / "out", {"MEMORY": "1GB", "CORES": "1", "WALLTIME": "00:10:00"}
    command = [*PROGRAM.split(), "denoise", table(250), identity_bundle(), "-o", out, "--cluster", "slurm:2",
               "--lanes", 1, "--threads", 1, "--no-report"]  # fmt: skip
    environment = os.environ | {f"DASK_JOBQUEUE__SLURM__{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 180
    while len(list(out.glob("job/mics/*.mrc"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    cancelled = jobs()[:1]
    subprocess.run(["scancel", *cancelled], check=True)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert cancelled
    assert "dashboard http" in said
    assert len(starfile.read(out / "denoised.star")["micrographs"]) == 250
    assert all(mrcfile.validate(path) for path in out.glob("job/mics/*.mrc"))
    deadline = time.monotonic() + 60
    while jobs() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not jobs()
