"""The folder of a RELION External job: the files by which RELION and a program of others talk to each other.

RELION's manual, "External job-type", says what they are: the program leaves one of three empty files to say how it
ended, lists its outputs in `RELION_OUTPUT_NODES.star`, and ends when the GUI leaves `RELION_JOB_ABORT_NOW`.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from gemmi import cif

from n2n_deploy.core.version import __version__
from n2n_deploy.files.atomic import atomic_write

SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{end}" for end in ("SUCCESS", "FAILURE", "ABORTED"))
ABORT_NOW = "RELION_JOB_ABORT_NOW"
OUTPUT_NODES = "RELION_OUTPUT_NODES.star"
PIPELINE = "default_pipeline.star"
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class NodeType:
    """What RELION takes a file for, which decides where its GUI offers it.

    Attributes:
        number: in RELION 3.1.
        label: in RELION 4 and 5.
    """

    number: str
    label: str


MICROGRAPHS = NodeType("1", "MicrographGroupMetadata.star.relion")
LOG_FILE = NodeType("13", "LogFile.pdf.relion")
PARAMETERS = NodeType("15", "ParamsData.n2n.model")
"""RELION has no type for a denoising model; this one is next to it."""


@dataclass
class RelionJob:
    """A job that is running.

    Attributes:
        folder: of the job, as RELION gave it: relative to the project, in which the program runs.
        outputs: what it made, to be listed in the project; files that do not exist are left out.
        succeeded: whether the work was done; False also for a job that nobody aborted.
    """

    folder: Path
    outputs: dict[Path, NodeType] = field(default_factory=dict)
    succeeded: bool = False

    def note(self, lines: Sequence[str]) -> None:
        """Append to the job's `note.txt`, which the GUI shows, in the form of RELION's own notes."""
        text = "".join(f"{line}\n" for line in lines)
        with (self.folder / "note.txt").open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(f" ++++ n2n-deploy {__version__} on {time.asctime()}\n{text} ++++\n")


@contextmanager
def relion_job(folder: Path) -> Iterator[RelionJob]:
    """Run the body as a RELION job: marks of an earlier run are cleared, and one is left at the end.

    `RELION_JOB_ABORT_NOW` sends this process SIGTERM. Where nothing else handles it, it raises SystemExit.

    Args:
        folder: of the job; made if there is none.

    Raises:
        SystemExit: the job was aborted, with 128 + SIGTERM; the mark says so.
    """
    job, mark, over = RelionJob(folder), FAILURE, threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, _exit)
        for name in (SUCCESS, FAILURE, ABORTED, ABORT_NOW):
            (folder / name).unlink(missing_ok=True)
        threading.Thread(target=_watch, args=(folder / ABORT_NOW, over), daemon=True).start()
        yield job
        mark = SUCCESS if job.succeeded else FAILURE
    except (KeyboardInterrupt, SystemExit) as ended:
        code = ended.code if isinstance(ended, SystemExit) else 128 + signal.SIGINT
        mark = ABORTED if isinstance(code, int) and code >= 128 else FAILURE
        raise
    finally:
        over.set()
        signal.signal(signal.SIGTERM, before)
        _list_outputs(job)
        with suppress(FileNotFoundError):
            (folder / ABORT_NOW).unlink()
            mark = SUCCESS if mark == SUCCESS else ABORTED
        (folder / mark).touch()


def type_of_node(path: Path, project: Path, default: NodeType = MICROGRAPHS) -> NodeType:
    """Return what RELION takes one of a project's files for: the names of the types differ between versions.

    Args:
        path: relative to the project.
        project: its folder, with `default_pipeline.star`.
        default: where the project does not say it.
    """
    try:
        block = cif.read_file(str(project / PIPELINE)).find_block("pipeline_nodes")
    except (OSError, ValueError, RuntimeError):
        return default
    number, label = default.number, default.label
    for row in block.find("_rlnPipeLineNode", ["Name", "?Type", "?TypeLabel"]) if block else ():
        if cif.as_string(row[0]) == str(path):
            number = row[1] if row.has(1) else number
            label = row[2] if row.has(2) else label
    return NodeType(number, label)


def bind_pictures(pictures: Sequence[Path], book: Path) -> None:
    """Write pictures as the pages of a PDF, which RELION's GUI displays; those that do not exist are left out."""
    from PIL import Image

    pages = [Image.open(path).convert("RGB") for path in pictures if path.exists()]
    if pages:
        with atomic_write(book) as stream:
            pages[0].save(stream, format="PDF", save_all=True, append_images=pages[1:])


def _list_outputs(job: RelionJob) -> None:
    """Write the table of outputs, with the columns of RELION 3.1 and of 4 and 5; each ignores the other's."""
    document = cif.Document()
    columns = ["Name", "Type", "TypeLabel"]
    table = document.add_new_block("output_nodes").init_loop("_rlnPipeLineNode", columns)
    made = {path: kind for path, kind in job.outputs.items() if path.exists()}
    for path, kind in made.items():
        table.add_row([cif.quote(str(path)), kind.number, kind.label])
    if made:
        (job.folder / OUTPUT_NODES).write_text(document.as_string(), encoding="utf-8", errors="surrogateescape")


def _watch(request: Path, over: threading.Event) -> None:
    """Send this process SIGTERM once a file appears."""
    while not over.wait(POLL_SECONDS):
        if request.exists():
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
