"""`n2n-deploy doctor`: what this machine has, what each engine would do on it, and a remedy for what is missing."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json


def doctor_command(
    model: Annotated[
        Path | None, typer.Argument(help="A bundle, or general, to show which of its engines would run here.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show drivers, GPUs, libraries and what each engine would do on this machine, with a remedy for what is missing.

    Exits with 0 if at least one engine works, otherwise with 3.
    """
    del config
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.bundle.trust import TRUSTED_KEYS
    from n2n_deploy.core.version import __version__
    from n2n_deploy.data import GENERAL_MODEL
    from n2n_deploy.device.gpus import driver
    from n2n_deploy.device.memory import available_memory
    from n2n_deploy.engines.diagnose import DRIVER_REMEDY, diagnose_engines, libraries
    from n2n_deploy.engines.tensorrt.cache import cache_folder

    bundle = Bundle.open(model) if model else None
    found = driver()
    report: dict[str, Any] = {
        "n2n_deploy": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "available_memory": available_memory(),
        "driver": asdict(found) | {"remedy": DRIVER_REMEDY if found.problem else None},
        "libraries": [asdict(library) for library in libraries()],
        "engines": [asdict(diagnosis) for diagnosis in diagnose_engines(bundle)],
        "engine_cache": str(cache_folder()),
        "general_model": str(GENERAL_MODEL) if GENERAL_MODEL.is_file() else None,
        "trusted_keys": os.environ.get(TRUSTED_KEYS),
    }
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not any(engine["works"] for engine in report["engines"]):
        raise typer.Exit(3)


def _show(report: dict[str, Any]) -> None:
    machine = Table(box=None, show_header=False)
    machine.add_row("n2n-deploy", f"{report['n2n_deploy']} on Python {report['python']}, {report['system']}")
    machine.add_row("CPU", f"{report['cpus']} cores, {report['available_memory'] / 1e9:.1f} GB of memory free")
    driver = report["driver"]
    if driver["problem"]:
        machine.add_row("driver", f"[yellow]{escape(driver['problem'])}[/]: {escape(driver['remedy'])}")
    else:
        machine.add_row("driver", f"{driver['version'] or 'unknown version'}, up to CUDA {driver['cuda']}")
    for gpu in driver["gpus"]:
        text = f"{gpu['name']}, compute capability {gpu['capability']}, {gpu['memory'] / 1e9:.0f} GB"
        machine.add_row(f"GPU {gpu['index']}", escape(text))
    machine.add_row("general model", escape(report["general_model"] or "none; name a model with --model"))
    machine.add_row("engine cache", escape(report["engine_cache"]))
    machine.add_row(
        "trusted keys", escape(report["trusted_keys"] or "none configured; all intact bundles are accepted")
    )
    out.print(machine)
    _print_rows("Libraries", [_library_row(library) for library in report["libraries"]])
    _print_rows("Engines, the fastest first", [_engine_row(engine) for engine in report["engines"]])


def _library_row(library: dict[str, Any]) -> tuple[str, str]:
    if library["problem"] is None:
        return library["name"], f"[green]{library['version']}[/]"
    return library["name"], f"[yellow]{escape(library['problem'])}[/]; {escape(library['remedy'])}"


def _engine_row(engine: dict[str, Any]) -> tuple[str, str]:
    colour = "green" if engine["works"] else "yellow"
    return f"[{colour}]{engine['engine']}[/]", escape(engine["message"])


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*row)
    out.print(f"\n[bold]{title}[/]")
    out.print(table)
