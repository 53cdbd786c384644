"""The MRC label that says which work an output is the result of: the proof, in the file itself, that it is done."""

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.status import Status
from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import Precision
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.core.version import RELEASE
from n2n_deploy.io.denoised_images import DENOISED
from n2n_deploy.io.mrc import read_header
from n2n_deploy.io.mrc_header import HEADER_BYTES
from n2n_deploy.io.mrc_output import LABEL_LENGTH
from n2n_deploy.io.records import Micrograph


def provenance_label(
    model_hash: str,
    options: DenoiseOptions,
    recipe: Recipe,
    micrograph: Micrograph,
    stamps: Sequence[tuple[int, int]],
) -> str:
    """Return the MRC label (at most 80 characters) that names the work an output is the result of.

    Its last word is a hash of everything that changes the pixels: model, recipe, options, optics, CTF, and the size and
    modification time (`stamps`) of each input file. A run that computes the same label for a row need not do it again.
    The precision counts only if the user named it. One that each node chooses for itself is not known before the
    network is open; `with_precision` adds it, and the ledger sees to it that int8 and floating point are not mixed.
    """
    work = (_shared_work(model_hash, options, recipe), micrograph.optics, micrograph.ctf, *stamps)
    work_hash = hashlib.sha256(repr(work).encode()).hexdigest()[:16]
    return f"n2n-deploy {RELEASE}{DENOISED}model {model_hash} work {work_hash}"


def with_precision(label: str, precision: Precision | None) -> str:
    """Return the label with the precision that ran, as far as its 80 characters allow."""
    longer = label.replace(" denoised:", f" denoised in {precision}:", 1)
    return longer if precision is not None and len(longer) <= LABEL_LENGTH else label


def work_of(label: str) -> str:
    """Return the work hash in a label; the version of the program that did the work does not count."""
    return label.rpartition(" ")[2]


def outputs_status(paths: Iterable[Path], work: str) -> tuple[Status, str]:
    """Look at all outputs of a micrograph: one of other work counts before one that is missing; see `output_status`."""
    found = [output_status(path, work) for path in paths]
    order = (Status.KEPT, Status.PENDING, Status.DONE)
    return min(found, key=lambda each: order.index(each[0]))


def output_status(path: Path, work: str) -> tuple[Status, str]:
    """Look at an output: nothing of value (to do), this work finished (done), or other work (kept) and what is known.

    Args:
        path: the output.
        work: hash of the work that it should be the result of.
    """
    if not os.path.lexists(path):
        return Status.PENDING, ""
    try:
        labels = read_header(path, ndim=3).labels
    except (DataError, OSError):
        try:
            with path.open("rb") as file:
                block = file.read(HEADER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return Status.PENDING, ""
        except OSError as error:
            return Status.KEPT, f"{path} already exists and cannot be read ({error.strerror})"
        # After a power failure a file may have its name without all of its bytes.
        if not block or f" work {work}".encode() in block:
            return Status.PENDING, ""
        labels = ()
    own = [label for label in labels if label.startswith("n2n-deploy")]
    if any(work_of(label) == work for label in own):
        return Status.DONE, ""
    origin = f"was made by other work ({own[-1]})" if own else "was not made by n2n-deploy"
    return Status.KEPT, f"{path} already exists and {origin}"


@functools.lru_cache(4)
def _shared_work(model_hash: str, options: DenoiseOptions, recipe: Recipe) -> tuple[str, ...]:
    """Return what the work of all micrographs of a run has in common."""
    return model_hash, options.output_hash, repr(recipe)
