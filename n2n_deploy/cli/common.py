"""What every command shares: errors to exit codes, `--config`, the effective configuration, `--json`."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import typer
from rich.console import Console

from n2n_deploy.core.errors import UsageError
from n2n_deploy.files.atomic import atomic_write

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the command, so that flags given beside it win.

    Keys are the long option names without dashes in front; dashes and underscores are the same. A table named
    after the command, where there is one, is read in place of the whole file, so one file can serve several.
    """
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; --config takes a TOML file with options")
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
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
            raise UsageError(f"{path}: {key} is no option of {ctx.info_name}; see n2n-deploy {ctx.info_name} --help")
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with values for these options; flags win over it.",
        callback=load_config,
        is_eager=True,
        dir_okay=False,
        rich_help_panel="General",
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, for programs.", rich_help_panel="General")
]

_MACHINE, _ENGINE = "Machine", "The engine"

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, gpu or cuda:N.", rich_help_panel=_MACHINE)]

MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Most host memory to use, such as 3GB; tiles are chosen to fit. By default a share of what is free.",
        rich_help_panel=_MACHINE,
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of the network; all by default.", rich_help_panel=_MACHINE),
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="tensorrt, rtx, tensorrt-lean, onnxruntime-cuda, openvino or onnxruntime-cpu; by default the best "
        "that works.",
        rich_help_panel=_ENGINE,
    ),
]

PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, fp16 or bf16; by default fp16 on a GPU, and on the CPU bf16 with OpenVINO and AMX, else fp32.",
        rich_help_panel=_ENGINE,
    ),
]

TrustedKeysOption = Annotated[
    Path | None,
    typer.Option(
        "--trusted-keys",
        envvar="N2N_DEPLOY_TRUSTED_KEYS",
        help="File or folder of public keys; a bundle that none of them signed is refused.",
        rich_help_panel=_ENGINE,
    ),
]


def parse_precision(text: str | None) -> Literal["fp32", "fp16", "bf16"] | None:
    """Check the name of a precision.

    Raises:
        UsageError: there is no such precision.
    """
    match text:
        case None | "fp32" | "fp16" | "bf16":
            return text
    raise UsageError(f"--precision {text!r} does not exist; choose fp32, fp16 or bf16")


def effective_config(ctx: typer.Context) -> dict[str, Any]:
    """Every option of this run with the value it really had, ready for TOML, under its long name.

    Left out are options without a value, and those that only say how to show the result.
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
        if value is None or {"--config", "--json"} & set(parameter.opts):
            continue
        long_names = [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]
        found[(long_names or [parameter.name or ""])[0].replace("-", "_")] = plain(value)
    return found


def save_config(ctx: typer.Context, folder: Path) -> None:
    """Write the effective configuration to `folder/config.toml`; `--config` takes it back as it is."""
    with atomic_write(folder / "config.toml") as stream:
        stream.write(tomli_w.dumps({ctx.info_name or "run": effective_config(ctx)}).encode())


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
