"""The application: its commands, global options, and how errors become one line and an exit code."""

import importlib
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from rich.markup import escape

from n2n_deploy.cli.common import err
from n2n_deploy.cli.options import expectation
from n2n_deploy.cli.terminal import tolerate_any_character
from n2n_deploy.core.errors import HostError, N2NError
from n2n_deploy.core.version import __version__

COMMANDS = {
    "simulate": "n2n_deploy.cli.simulate",
    "halves": "n2n_deploy.cli.halves_command",
    "train": "n2n_deploy.cli.train",
    "export": "n2n_deploy.cli.export",
    "export-triton": "n2n_deploy.cli.export_triton",
    "compile": "n2n_deploy.cli.compile",
    "inspect": "n2n_deploy.cli.bundle",
    "verify": "n2n_deploy.cli.bundle",
    "keygen": "n2n_deploy.cli.sign",
    "sign": "n2n_deploy.cli.sign",
    "denoise": "n2n_deploy.cli.denoise",
    "merge-results": "n2n_deploy.cli.merge_results",
    "evaluate": "n2n_deploy.cli.evaluate",
    "angles": "n2n_deploy.cli.angles",
    "fsc": "n2n_deploy.cli.fsc",
    "doctor": "n2n_deploy.cli.doctor",
    "demo": "n2n_deploy.cli.demo",
}
"""Command name → the module that defines a function `<name>_command` for it, with underscores for hyphens."""

_Misuse: Any = typer.BadParameter.__base__
"""Click's UsageError, for a command line that cannot be parsed; Typer's copy of Click has no public name for it."""


def build() -> typer.Typer:
    """Assemble the application from the command modules, none of which imports anything heavy at the top."""
    app = typer.Typer(
        name="n2n-deploy",
        help="Noise2noise denoising of cryo-EM micrographs: train, export, ship one file, denoise thousands.",
        epilog="Exit codes: 0 all done, 1 some failed, 2 usage, 3 environment (a library, GPU, memory or disk), "
        "130 interrupted.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True),
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        del version
        if debug:
            os.environ["N2N_DEPLOY_DEBUG"] = "1"

    for name, module in COMMANDS.items():
        function: Any = getattr(importlib.import_module(module), f"{name.replace('-', '_')}_command")
        app.command(name, help=_paragraphs(function.__doc__))(function)
    return app


def _paragraphs(text: str) -> str:
    """A docstring with each paragraph on one line, so that the help is wrapped to the terminal's width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"n2n-deploy {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all done, 1 some failed, 2 usage, 3 environment, 130 interrupted.

    Errors are one line: those of this package, a mistyped command line, and an OSError that nothing foresaw.
    """
    with errors_as_exit_codes():
        sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are raised."""
    tolerate_any_character()
    # GNU OpenMP's waiting threads spin for milliseconds: on a machine shared with others that costs several times the
    # work itself, while not spinning at all costs half of it again on an idle one. PyTorch reads this when imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    return build()(arguments, prog_name="n2n-deploy", standalone_mode=False) or 0


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn the errors of the body into one line and an exit code."""
    try:
        yield
    except KeyboardInterrupt:  # while the commands were still being imported; Typer handles it from there on
        sys.exit(128 + signal.SIGINT)
    except (N2NError, ModuleNotFoundError, OSError, _Misuse) as error:
        if os.environ.get("N2N_DEPLOY_DEBUG"):
            raise
        message, code = _explain(error)
        if message:
            err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        sys.exit(code)


def _explain(error: Exception) -> tuple[str, int]:
    """One line that says what went wrong, and the exit code."""
    if isinstance(error, _Misuse):
        return _misuse(error), 2
    if isinstance(error, ModuleNotFoundError):
        error = _missing_library(error)
    elif isinstance(error, OSError):
        error = HostError(f"{error.filename or 'the system'}: {error.strerror or error}; --debug shows where")
    assert isinstance(error, N2NError)
    return str(error), error.exit_code


def _misuse(error: Any) -> str:
    """What is wrong with the command line, with the option that was probably meant."""
    text = expectation(error.format_message().strip().rstrip("."))
    if not text:  # no command at all: the help was printed
        return ""
    if hasattr(error, "possibilities"):  # NoSuchOption
        known = [flag for parameter in error.ctx.command.params for flag in parameter.opts + parameter.secondary_opts]
        text = f"no such option {error.option_name}"
        if close := get_close_matches(error.option_name, known, 1):
            text += f"; did you mean {close[0]}?"
    command = error.ctx.command_path if error.ctx else "n2n-deploy"
    return f"{text[0].lower()}{text[1:]} ({command} --help)"


def _missing_library(error: ModuleNotFoundError) -> HostError:
    """Say which extra of the package installs the missing library."""
    extras = {
        "torch": "train",
        "h5py": "train",
        "onnx": "export",
        "onnxruntime": "cpu",
        "matplotlib": "report",
        "jinja2": "report",
        "PIL": "report",
    }
    library = (error.name or "").partition(".")[0]
    if library not in extras:
        raise error
    return HostError(
        f"this command needs the Python library {library}, which is not installed; "
        f"run: pip install 'n2n-deploy[{extras[library]}]'"
    )
