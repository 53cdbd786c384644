"""RELION's own pipeliner runs our External jobs in a project, and lists what they made."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import pytest
import starfile
from bundle_builder import one_layer_bundle
from PIL import Image

from n2n_deploy import Bundle
from n2n_deploy.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]
TABLE = "CtfFind/job003/micrographs_ctf.star"

PIPELINE = f"""
data_pipeline_general

_rlnPipeLineJobCounter 4

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessType #3
_rlnPipeLineProcessStatus #4
CtfFind/job003/ None 2 2

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
{TABLE} 1

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
CtfFind/job003/ {TABLE}
"""
"""A RELION 3.1 project as it is after CTF estimation."""

FINISHED = 2
"""RELION 3.1's number of a job's status."""

Relion = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with three simulated micrographs, their CTFs, a model, and our programs in `bin`."""
    simulate(tmp_path, 3, (160, 192), 2.0, seed=3, particles=1)
    table = tmp_path / TABLE
    table.parent.mkdir(parents=True)
    (tmp_path / "micrographs.star").rename(table)
    (tmp_path / "default_pipeline.star").write_text(PIPELINE)
    one_layer_bundle(tmp_path / "model.n2n", max_resolution=8.0, phase_flip=True)
    (tmp_path / "bin").mkdir()
    for name in ("denoise", "train"):
        program = tmp_path / "bin" / f"n2n-deploy-relion-{name}"
        code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom n2n_deploy.__main__ import relion_{name}\n"
        program.write_text(f"#!{sys.executable}\n{code}relion_{name}()\n")
        program.chmod(0o755)
    return tmp_path


def add_job(relion: Relion, project: Path, program: str, **parameters: str) -> Path:
    """Add an External job as the GUI does; its folder, relative to the project."""
    fields = {"fn_exe": project / "bin" / f"n2n-deploy-relion-{program}", "in_mic": TABLE, "nr_threads": 2}
    for number, (label, value) in enumerate(parameters.items(), start=1):
        fields |= {f"param{number}_label": label} | ({f"param{number}_value": value} if value else {})
    options = "".join(f"{name} == {value};" for name, value in fields.items())
    relion("relion_pipeliner", "--addJob", "External", "--addJobOptions", options, cwd=project)
    return max(path.relative_to(project) for path in project.glob("External/job*"))


def run_job(relion: Relion, project: Path, job: Path, schedule: str) -> None:
    """Let RELION run a job, or continue it, and wait for its mark."""
    relion("relion_pipeliner", "--RunJobs", f"{job}/", "--schedule", schedule, "--sec_wait_after", 0, cwd=project)


def outputs(project: Path, job: Path) -> dict[str, int]:
    """What the project lists as a job's outputs, with RELION's types."""
    pipeline = starfile.read(project / "default_pipeline.star")
    edges = pipeline["pipeline_output_edges"]
    made = edges[edges["rlnPipeLineEdgeProcess"] == f"{job}/"]["rlnPipeLineEdgeToNode"]
    nodes = pipeline["pipeline_nodes"].set_index("rlnPipeLineNodeName")["rlnPipeLineNodeType"]
    return {name: int(nodes[name]) for name in made}


def status(project: Path, job: Path) -> int:
    """What the project says of a job."""
    processes = starfile.read(project / "default_pipeline.star")["pipeline_processes"]
    return int(processes.set_index("rlnPipeLineProcessName")["rlnPipeLineProcessStatus"][f"{job}/"])


def cut_table(project: Path, rows: int) -> str:
    """Leave the first rows of the table; the whole text, to write back."""
    table = project / TABLE
    whole = table.read_text()
    tables = starfile.read(table)
    tables["micrographs"] = tables["micrographs"].iloc[:rows]
    starfile.write(tables, table, overwrite=True)
    return whole


def test_relion_runs_denoise_and_uses_its_table(project: Path, relion: Relion) -> None:
    whole = cut_table(project, 2)
    job = add_job(relion, project, "denoise", model="model.n2n", output_pixel_size="4", halves="No", report="No")
    run_job(relion, project, job, "first")
    log = (project / job / "run.err").read_text()
    assert (project / job / "RELION_JOB_EXIT_SUCCESS").exists(), log
    assert status(project, job) == FINISHED
    assert outputs(project, job) == {f"{job}/denoised.star": 1}
    assert "2 micrographs" in (project / job / "note.txt").read_text()
    first = starfile.read(project / job / "denoised.star")["micrographs"]["rlnMicrographName"]
    assert all(name.startswith(f"{job}/") for name in first)
    assert mrcfile.read(project / first[0]).shape == (80, 96)
    made = {name: (project / name).stat().st_mtime_ns for name in first}

    (project / TABLE).write_text(whole)  # as Import, motion correction and CTF estimation add to it in a Scheme
    run_job(relion, project, job, "second")
    names = starfile.read(project / job / "denoised.star")["micrographs"]["rlnMicrographName"]
    assert len(names) == 3
    assert {name: (project / name).stat().st_mtime_ns for name in first} == made, "finished work is kept"

    picking = ("--odir", "AutoPick/job005/", "--pickname", "log", "--angpix", 4, "--LoG")
    sizes = ("--LoG_diam_min", 110, "--LoG_diam_max", 150)
    relion("relion_autopick", "--i", f"{job}/denoised.star", *picking, *sizes, cwd=project)
    assert len(list((project / "AutoPick" / "job005").rglob("*_log.star"))) == 3


def test_relion_runs_train_and_its_model_denoises(project: Path, relion: Relion) -> None:
    small = {"preset": "small", "max_resolution": "8", "patch_size": "32", "epochs": "1", "batches": "2"}
    job = add_job(relion, project, "train", **small, batch_size="2", device="cpu")
    run_job(relion, project, job, "training")
    assert (project / job / "RELION_JOB_EXIT_SUCCESS").exists(), (project / job / "run.err").read_text()
    assert outputs(project, job) == {f"{job}/model.n2n": 15, f"{job}/logfile.pdf": 13}
    assert (project / job / "logfile.pdf").read_bytes().startswith(b"%PDF")
    assert Bundle.open(project / job / "model.n2n").recipe.max_resolution == 8
    second = add_job(relion, project, "denoise", model=f"{job}/model.n2n", flip_back="")
    run_job(relion, project, second, "denoising")
    assert outputs(project, second) == {f"{second}/denoised.star": 1}
    optics = starfile.read(project / second / "denoised.star")["optics"]
    assert list(optics["rlnCtfDataArePhaseFlipped"]) == [0]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"model": "model.n2n", "mergeing": "3"}, "no such option --mergeing; did you mean --merge?"),
        ({"model": "model.n2n", "lowpass": ""}, "parameter lowpass: has no value"),
        ({"model": "model.n2n", "flip_back": "maybe"}, "parameter flip_back: is a flag"),
        ({"model": "missing.n2n"}, "missing.n2n"),
    ],
)
def test_a_mistake_in_the_fields_fails_the_job_with_one_line(
    parameters: dict[str, str], error: str, project: Path, relion: Relion
) -> None:
    job = add_job(relion, project, "denoise", **parameters)
    relion("relion_pipeliner", "--RunJobs", f"{job}/", "--schedule", "failing", "--sec_wait_after", 0, cwd=project)
    assert (project / job / "RELION_JOB_EXIT_FAILURE").exists()
    (line,) = [text for text in (project / job / "run.err").read_text().splitlines() if text.startswith("error:")]
    assert error in line
    assert not outputs(project, job)


def start(project: Path, program: str, job: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start one of the programs with the command that RELION's GUI makes."""
    command = [project / "bin" / f"n2n-deploy-relion-{program}", "--o", job, "--in_mics", TABLE, *arguments, "--j", "1"]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def marks(folder: Path) -> set[str]:
    """The marks in a job's folder."""
    return {path.name.removeprefix("RELION_JOB_") for path in folder.glob("RELION_JOB_*")}


def test_abort_ends_a_training_and_continue_resumes_it(project: Path) -> None:
    folder = project / "External" / "job004"
    options = {"preset": "small", "max_resolution": 8, "patch_size": 32, "device": "cpu", "batch_size": 2}
    options |= {"epochs": 1000, "batches": 1000}
    long = [text for label, value in options.items() for text in (f"--{label}", str(value))]
    process = start(project, "train", "External/job004/", *long)
    while not list((folder / "patches").glob("*")) and process.poll() is None:
        time.sleep(0.2)
    (folder / "RELION_JOB_ABORT_NOW").touch()
    printed, _ = process.communicate(timeout=300)
    assert process.returncode >= 128, printed
    assert marks(folder) == {"EXIT_ABORTED"}, printed
    # Continue, as if somebody had left ABORT_NOW behind; so little time ends it as soon as it may.
    (folder / "RELION_JOB_ABORT_NOW").touch()
    process = start(project, "train", "External/job004/", *long, "--max_minutes", "0.001")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert marks(folder) == {"EXIT_SUCCESS"}
    assert (folder / "model.n2n").exists()


def test_an_abort_before_the_work_begins_is_an_abort(project: Path) -> None:
    """SIGTERM from a queue takes the same way."""
    folder = project / "External" / "job004"
    process = start(project, "denoise", "External/job004/", "--model", "model.n2n")
    assert process.stdout
    while "n2n-deploy denoise" not in (line := process.stdout.readline()) and line:  # the command that it runs
        pass
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert marks(folder) == {"EXIT_ABORTED"}


def test_one_bad_micrograph_does_not_fail_the_job_but_all_do(project: Path) -> None:
    folder = project / "External" / "job004"
    micrographs = [project / name for name in starfile.read(project / TABLE)["micrographs"]["rlnMicrographName"]]
    micrographs[1].write_bytes(b"cut off")
    process = start(project, "denoise", "External/job004/", "--model", "model.n2n")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert marks(folder) == {"EXIT_SUCCESS"}
    assert "1 failed" in (folder / "note.txt").read_text()
    for path in micrographs:
        path.write_bytes(b"cut off")
    shutil.rmtree(folder)
    process = start(project, "denoise", "External/job004/", "--model", "model.n2n")
    process.communicate(timeout=300)
    assert marks(folder) == {"EXIT_FAILURE"}


def test_types_of_outputs_are_those_of_the_projects_version(project: Path) -> None:
    """RELION 4 and 5 name the types differently; the table is of the input's type."""
    (project / "default_pipeline.star").write_text(
        "data_pipeline_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n_rlnPipeLineNodeTypeLabel #2\n"
        f"{TABLE} MicrographsData.star.relion.ctf\n"
    )
    process = start(project, "denoise", "External/job004/", "--model", "model.n2n", "--no-report")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    nodes = starfile.read(project / "External" / "job004" / "RELION_OUTPUT_NODES.star")
    assert list(nodes["rlnPipeLineNodeTypeLabel"]) == ["MicrographsData.star.relion.ctf"]
    assert list(nodes["rlnPipeLineNodeType"]) == [1]


def test_pages_of_the_log_file_are_the_pictures(tmp_path: Path) -> None:
    from n2n_deploy.interop.relion_job import bind_pictures

    for name, size in (("a.png", (30, 20)), ("b.png", (50, 40))):
        Image.new("RGBA", size).save(tmp_path / name)
    bind_pictures([tmp_path / name for name in ("a.png", "missing.png", "b.png")], tmp_path / "book.pdf")
    content = (tmp_path / "book.pdf").read_bytes()
    assert content.count(b"/MediaBox") == 2
