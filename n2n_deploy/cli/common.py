"""What every command has: `--config`, the effective configuration that it saves, and `--json`."""

import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from rich.console import Console

from n2n_deploy.core.errors import UsageError
from n2n_deploy.files.atomic import atomic_write

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the command, so that flags on the command line win.

    Keys are the long option names without dashes in front; dashes and underscores are the same. A table named
    after the command, where there is one, is read in place of the whole file, so one file can serve several.
    """
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"{path}: file not found; --config takes a TOML file of options")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a valid TOML file: {error}") from error
    content = content.get(ctx.info_name or "", content)
    names = {
        option.lstrip("-").replace("-", "_"): parameter.name
        for parameter in ctx.command.params
        for option in (*parameter.opts, parameter.name or "")
        if option and option != "--config"
    }
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            raise UsageError(f"{path}: {ctx.info_name} has no option {key!r}; see n2n-deploy {ctx.info_name} --help")
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with values for these options; flags override it.",
        callback=load_config,
        is_eager=True,
        dir_okay=False,
        rich_help_panel="General",
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel="General")]


def effective_config(ctx: typer.Context) -> dict[str, Any]:
    """Every option of this run with the value that it had, ready for TOML, under its long name.

    Options without a value, old names, and options that only say how to show the result are left out.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value)

    found = {}
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if value is None or getattr(parameter, "hidden", False) or {"--config", "--json"} & set(parameter.opts):
            continue
        long_names = [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]
        found[(long_names or [parameter.name or ""])[0].replace("-", "_")] = plain(value)
    return found


def save_config(ctx: typer.Context, folder: Path) -> None:
    """Write the effective configuration to `folder/config.toml`; `--config` reads it again."""
    with atomic_write(folder / "config.toml") as stream:
        stream.write(tomli_w.dumps({ctx.info_name or "run": effective_config(ctx)}).encode(errors="replace"))


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and values in two columns; values are not wrapped, for they may be paths."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        out.print(f"{label:<{width}}  {value}", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
