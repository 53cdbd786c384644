"""`n2n-deploy-relion-denoise` and `n2n-deploy-relion-train`: `denoise` and `train` as External jobs of RELION's GUI."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from n2n_deploy.cli.app import build, errors_as_exit_codes, run
from n2n_deploy.cli.terminal import tolerate_any_character
from n2n_deploy.core.errors import UsageError

_USAGE = """\
usage: n2n-deploy-relion-{command} --o External/jobNNN/ --in_mics TABLE [--j THREADS] [--OPTION VALUE ...]

Runs `n2n-deploy {command}` as a RELION External job. In the GUI: External executable n2n-deploy-relion-{command},
Input micrographs TABLE, and on the Params tab the options of `n2n-deploy {command}` as labels and values; a
label without a value is a flag. See docs/how-to/relion-jobs.md and n2n-deploy {command} --help.
"""


def denoise() -> None:
    """Denoise the job's micrographs into its folder; the process ends with 0 where RELION is told of success."""
    with errors_as_exit_codes():
        sys.exit(_denoise(_arguments("denoise")))


def train() -> None:
    """Train on the job's micrographs and export the bundle, `model.n2n` in the job's folder."""
    with errors_as_exit_codes():
        sys.exit(_train(_arguments("train")))


def _denoise(given: dict[str, list[str]]) -> int:
    """A micrograph that fails does not fail the job, or one bad file would end a Scheme; nothing denoised does."""
    from n2n_deploy.batch.summary import SUMMARY
    from n2n_deploy.interop.relion_job import relion_job, type_of_node

    folder = _folder(given)
    with relion_job(folder) as job, errors_as_exit_codes():  # the error is in run.err before RELION sees the mark
        table, threads = _table(given), _threads(given)
        options = options_of("denoise", given)
        command = ["denoise", table, "-o", str(folder), "--project", ".", "--threads", threads, *options]
        print(shlex.join(["n2n-deploy", *command]), flush=True)
        code = run(command)
        if code >= 128:
            raise SystemExit(code)
        if not (folder / SUMMARY).exists():  # --dry-run and --shard write no account
            job.succeeded = code == 0
            return code
        summary = json.loads((folder / SUMMARY).read_bytes())
        job.succeeded = not summary["not_begun"] and (summary["listed"] > 0 or not summary["failed"])
        job.outputs[folder / "denoised.star"] = type_of_node(Path(table), Path())
        counts = f"{summary['listed']} micrographs in {folder / 'denoised.star'}, {summary['failed']} failed"
        report = f"; report: {folder / 'report.html'}" if (folder / "report.html").exists() else ""
        job.note([shlex.join(["n2n-deploy", *command]), counts + report])
    return 0 if job.succeeded else 1


def _train(given: dict[str, list[str]]) -> int:
    """A job that is continued goes on with its training, or ends at once if that is complete."""
    from n2n_deploy.interop.relion_job import LOG_FILE, PARAMETERS, bind_pictures, relion_job

    folder = _folder(given)
    with relion_job(folder) as job, errors_as_exit_codes():
        table, threads = _table(given), _threads(given)
        os.environ.setdefault("OMP_NUM_THREADS", threads)  # before PyTorch is imported
        options = options_of("train", given)
        checkpoint, bundle, book = (folder / name for name in ("model.pt", "model.n2n", "logfile.pdf"))
        command = ["train", table, "-o", str(folder), "--resume", "--project", ".", "--workers", threads, *options]
        for step in (command, ["export", str(checkpoint), "-o", str(bundle)]):
            print(shlex.join(["n2n-deploy", *step]), flush=True)
            code = run(step)
            if code:
                raise SystemExit(code)
            job.note([shlex.join(["n2n-deploy", *step])])
        bind_pictures([folder / name for name in ("curves.png", "validation.png", "noise.png")], book)
        job.outputs |= {bundle: PARAMETERS, book: LOG_FILE}
        job.succeeded = True
    return 0


def options_of(name: str, given: dict[str, list[str]]) -> list[str]:
    """Return a job's parameters as options of a command.

    Args:
        name: of the command.
        given: values by label, as the GUI's fields held them. Underscores stand for hyphens, as in RELION's own names.
            A label without a value, or with Yes, is a flag; a flag with No is left out, or is its opposite.

    Raises:
        UsageError: a label has several values, a flag has another value, or an option has none. Labels that are not
            options are left to the command, which suggests the one that was meant.
    """
    command = typer.main.get_command(build()).commands[name]  # type: ignore[attr-defined]
    known = {flag: parameter for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    found: list[str] = []
    for label, values in given.items():
        flag = f"--{label.replace('_', '-')}"
        option = known.get(flag)
        if len(values) > 1:
            raise UsageError(f"parameter {label}: expected one value without spaces, found {' '.join(values)!r}")
        if option is None:
            found += [flag, *values]
        elif getattr(option, "is_flag", False):
            found += _flag(label, flag, option, values[0] if values else "yes")
        elif values:
            found += [flag, *values]
        else:
            raise UsageError(f"parameter {label}: has no value; give one beside it on the Params tab")
    return found


def _flag(label: str, flag: str, option: Any, value: str) -> list[str]:
    """A flag as it is switched by Yes or No."""
    if value.lower() in ("yes", "true", "1"):
        return [flag]
    if value.lower() not in ("no", "false", "0"):
        raise UsageError(f"parameter {label}: is a flag; expected no value, Yes or No, found {value!r}")
    opposite: list[str] = option.opts if flag in option.secondary_opts else option.secondary_opts
    return opposite[:1]


def _arguments(command: str) -> dict[str, list[str]]:
    """The program's arguments: values by label."""
    tolerate_any_character()
    if len(sys.argv) < 2 or {"-h", "--help"} & set(sys.argv):
        print(_USAGE.format(command=command), end="")
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    return by_label(sys.argv[1:])


def by_label(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of `--label value` pairs by label; one that is repeated has the last.

    Raises:
        UsageError: the first argument is not a label.
    """
    found: dict[str, list[str]] = {}
    label = None
    for argument in arguments:
        if argument.startswith("--"):
            label = argument.lstrip("-")
            found[label] = []
        elif label is None:
            raise UsageError(f"expected --label value pairs, as RELION's External job gives them; found {argument!r}")
        else:
            found[label].append(argument)
    return found


def _take(given: dict[str, list[str]], label: str) -> str:
    """Remove a label and return its value; the empty text if there is none."""
    return " ".join(given.pop(label, []))


def _folder(given: dict[str, list[str]]) -> Path:
    _take(given, "pipeline_control")  # of RELION's own programs; schedulers have been seen to add it
    folder = _take(given, "o")
    if not folder:
        raise UsageError("--o is missing: expected the job's folder, such as --o External/job005/")
    return Path(folder)


def _table(given: dict[str, list[str]]) -> str:
    table = _take(given, "in_mics")
    if not table:
        raise UsageError(
            "--in_mics is missing: choose a micrograph table with CTF as Input micrographs on the Input tab, such as "
            "CtfFind/job003/micrographs_ctf.star"
        )
    return table


def _threads(given: dict[str, list[str]]) -> str:
    return _take(given, "j") or "1"
