"""What users get wrong: one line that names the file or value, the right exit code, and nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run

SMALL = ("--preset", "small", "--max-resolution", "8", "--patch-size", "32", "--epochs", "1", "--batches", "1")


@pytest.fixture
def there(simulated: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good and bad files of every kind."""
    for source in (simulated, exported, exported.with_name("model.pt")):
        (tmp_path / source.name).symlink_to(source)
    text = (simulated / "micrographs.star").read_text().replace("micrographs/mic", f"{simulated}/micrographs/mic")
    bad_tables = {
        "good": text,
        "no-defocus": text.replace("_rlnDefocusU", "_rlnDefocus"),
        "no-halves": text.replace("_rlnMicrographNameEven", "_rlnA").replace("_rlnMicrographNameOdd", "_rlnB"),
        "pixel-size-0": text.replace("\t2.000000\t2.000000", "\t2.000000\t0.000000"),
    }
    assert len(set(bad_tables.values())) == len(bad_tables)
    for name, content in bad_tables.items():
        (tmp_path / f"{name}.star").write_text(content)
    damaged = bytearray(exported.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    (tmp_path / "damaged.n2n").write_bytes(damaged)
    (tmp_path / "notes.txt").write_text("not a table, not an image\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("denoise no-defocus.star model.n2n -o out", 1, "no-defocus.star: data_micrographs has no rlnDefocusU"),
        ("denoise pixel-size-0.star model.n2n -o out", 1, "rlnMicrographPixelSize is 0.000000; expected"),
        ("denoise model.pt model.n2n -o out", 1, "model.pt: "),
        ("denoise sim model.n2n -o out", 1, "sim: is a folder; give"),
        ("denoise good.star damaged.n2n -o out", 1, "damaged.n2n: "),
        ("denoise good.star sim -o out", 1, "sim: "),
        ("denoise good.star model.pt -o out", 1, "n2n-deploy export"),
        ("denoise good.star model.n2n -o notes.txt", 3, "notes.txt: is a file, expected a folder"),
        ("denoise good.star model.n2n -o out --dtype int8", 2, "int8"),
        ("denoise good.star model.n2n -o out --config none.toml", 2, "none.toml: file not found"),
        ("denoise good.star model.n2n -o out --device gpu9", 2, "invalid device 'gpu9'; choose auto, cpu, gpu"),
        ("denoise good.star model.n2n -o out --memory 3_apples", 2, "invalid size '3_apples'; use e.g. 3GB"),
        ("denoise good.star model.n2n -o out --merge -3", 2, "invalid --merge -3.0: expected a value greater than 0"),
        ("denoise good.star model.n2n -o out --suffixes DW,EVN", 2, "invalid suffixes 'DW,EVN'; expected three"),
        ("denoise good.star model.n2n -o out --gpus 0,0", 2, "a GPU is named twice"),
        ("denoise good.star model.n2n -o out --merg 3", 2, "--merg; did you mean --merge? (n2n-deploy denoise --help)"),
        (
            "denoise good.star model.n2n -o out --lanes two",
            2,
            "'--lanes': expected a valid integer (n2n-deploy",
        ),
        ("denoise", 2, "missing argument 'micrographs' (n2n-deploy denoise --help)"),
        ("denoize good.star model.n2n -o out", 2, "no such command 'denoize'. Did you mean 'denoise'? (n2n-deploy"),
        ("evaluate no-halves.star model.n2n -o out --pairs halves", 1, "no rlnMicrographNameEven"),
        ("evaluate good.star damaged.n2n -o out", 1, "damaged.n2n: "),
        ("evaluate good.star model.n2n -o notes.txt", 3, "notes.txt: is a file, expected a folder"),
        ("evaluate good.star model.n2n -o out --memory 1MB", 3, "memory"),
        ("evaluate good.star model.n2n -o out --device gpu9", 2, "gpu9"),
        ("train no-halves.star -o out --pairs halves", 1, "--suffixes DW,EVN,ODD"),
        ("train no-halves.star -o out --pairs halves", 1, '--even_odd_split in its "Additional arguments"'),
        ("train pixel-size-0.star -o out", 1, "rlnMicrographPixelSize is 0.000000; expected"),
        ("train good.star -o notes.txt", 3, "notes.txt: is a file, expected a folder"),
        ("train good.star -o notes.txt/run", 3, "notes.txt: is a file, expected a folder"),
        ("train good.star -o out --preset huge", 2, "choose one of auto, paper, fast, small"),
        ("train good.star -o out --device tpu", 2, "invalid device 'tpu'; choose auto, cpu, gpu (or cuda) or cuda:N"),
        ("train good.star -o out --max-resolution 0", 2, "--max-resolution 0"),
        ("export model.n2n -o new.n2n", 1, "n2n-deploy train"),
        ("export sim -o new.n2n", 1, "sim: there is no such model file"),
        ("export model.pt -o notes.txt/new.n2n", 3, "notes.txt: is a file, expected a folder"),
        ("angles good.star good.star", 1, "has no table of particles with rlnAngleRot"),
        ("angles notes.txt good.star", 1, "notes.txt: cannot be read as a STAR file"),
        ("angles good.star good.star --symmetry D0", 2, "symmetry"),
        ("fsc notes.txt notes.txt", 1, "notes.txt: "),
        ("fsc a.mrc b.mrc", 1, "a.mrc: "),
        ("fsc good.star good.star --pixel-size inf", 2, "--pixel-size inf; expected"),
        (
            "fsc sim/truth/mic_0001.mrc sim/truth/mic_0001.mrc --mask sim/truth/mic_0001.mrc",
            1,
            "mic_0001.mrc: mask values range from",
        ),
        ("inspect sim", 1, "sim: "),
        ("verify damaged.n2n", 1, "damaged.n2n: "),
        ("demo -o notes.txt", 3, "notes.txt: is a file, expected a folder"),
        ("simulate out --size 10x2000", 2, "the size is 10x2000, expected at least 64"),
        ("simulate out --size large", 2, "invalid --size 'large'; use WIDTHxHEIGHT in pixels, e.g. 2048x2048"),
        ("simulate out --pixel-size 0", 2, "pixel size is 0.0, expected"),
    ],
)
def test_mistake_is_one_line(command: str, code: int, words: str, there: Path, run: Run) -> None:
    before = sorted(there.rglob("*"))
    more = SMALL if command.startswith("train") and "--" not in command else ()
    found, printed, error = run(*command.split(), *more)
    assert (found, printed) == (code, ""), error
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert "Traceback" not in error
    new = {path for path in there.rglob("*") if path not in before and path.is_file()}
    assert not {path for path in new if "ledger" not in path.parts}


def test_unexpected_system_error_is_one_line(there: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "/data/disk")

    monkeypatch.setattr("n2n_deploy.bundle.archive.Bundle.open", broken)
    code, _, error = run("inspect", there / "model.n2n")
    assert code == 3
    assert error.startswith("error: /data/disk: Input/output error")


@pytest.mark.parametrize(
    "command",
    [
        "simulate OUT -n 1 --size 64x64",
        "train good.star -o OUT",
        "export model.pt -o OUT/new.n2n",
        "denoise good.star model.n2n -o OUT",
        "evaluate good.star model.n2n -o OUT",
    ],
)
def test_folder_without_permission(command: str, there: Path) -> None:
    folder = there / "read-only"
    folder.mkdir(mode=0o555)
    prefix = []
    if os.geteuid() == 0:  # who may write everywhere, unless that right is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and setpriv (util-linux) is not there to change that")
        prefix = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    words = command.replace("OUT", str(folder / "out")).split()
    more = SMALL if words[0] == "train" else ()
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "n2n_deploy", *words, *more], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    *_, line = (line for line in done.stderr.splitlines() if line.strip())
    assert line.startswith("error: ")
    assert "read-only" in line
    assert "Permission denied" in line
    assert "Traceback" not in done.stderr


def test_control_c_leaves_only_complete_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "n2n_deploy", "simulate", tmp_path / "sim", "-n", "500", "--size", "128x128"]
    process = subprocess.Popen([*map(str, command), "--particles", "0"], stderr=subprocess.PIPE)
    while not list(tmp_path.glob("sim/truth/*.mrc")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, error.decode()
    assert b"Traceback" not in error
    sizes = {path.stat().st_size for path in (tmp_path / "sim").rglob("*.mrc")}
    assert sizes == {1024 + 4 * 128 * 128}
    assert not list(tmp_path.rglob("*.n2n-tmp"))
