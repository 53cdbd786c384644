"""The options that several commands share, each declared once, and how a command's options become a model."""

import re
from pathlib import Path
from typing import Annotated, TypeVar, cast, get_args

import typer
from pydantic import BaseModel, ValidationError

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import Precision

FILES, OPTICS, MACHINE, ENGINE, PIXELS = "Files", "Optics", "Machine", "Engine", "Output images"
"""Headings of the help."""

Model = TypeVar("Model", bound=BaseModel)

PairsOption = Annotated[
    str,
    typer.Option(
        "--pairs",
        help="halves: even and odd halves. recorrupted: full exposures alone; noise of each one's own spectrum is "
        "added for one of a pair and subtracted for the other. auto: halves where the table or options name them.",
        rich_help_panel=FILES,
    ),
]

DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="auto (a GPU where one works), cpu, gpu (or cuda) or cuda:N.", rich_help_panel=MACHINE
    ),
]

GpusOption = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="N,…",
        help="Use several GPUs, such as 0,1, or all of them; the micrographs are shared among them. By default one.",
        rich_help_panel=MACHINE,
    ),
]

MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Limit of host memory, such as 3GB; large micrographs are processed in tiles to stay below it. By default "
        "a share of what is free.",
        rich_help_panel=MACHINE,
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of the network. By default all cores.", rich_help_panel=MACHINE),
]

LanesOption = Annotated[
    int | None,
    typer.Option(
        "--lanes",
        min=1,
        help="Micrographs processed concurrently (on each GPU); fewer where memory is short. The default suits the "
        "machine.",
        rich_help_panel=MACHINE,
    ),
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="tensorrt, rtx, tensorrt-lean, onnxruntime-cuda, openvino or onnxruntime-cpu. By default the fastest "
        "that works.",
        rich_help_panel=ENGINE,
    ),
]

PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, fp16, bf16 or int8. By default fp16 on a GPU; on a CPU int8 where the model offers it and the "
        "processor has VNNI, otherwise bf16 with OpenVINO and AMX, otherwise fp32.",
        rich_help_panel=ENGINE,
    ),
]

TrustedKeysOption = Annotated[
    Path | None,
    typer.Option(
        "--trusted-keys",
        envvar="N2N_DEPLOY_TRUSTED_KEYS",
        help="File or folder of public keys; refuse a bundle that none of them signed.",
        rich_help_panel=ENGINE,
    ),
]

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        help="Folder that the table's relative paths start at. By default the current folder, the table's folder or "
        "one above it, whichever has the files.",
        rich_help_panel=FILES,
    ),
]

SuffixesOption = Annotated[
    str | None,
    typer.Option(
        "--suffixes",
        metavar="DW,EVN,ODD",
        help="Suffixes of the file names of whole, even and odd sums, if the table does not name the halves.",
        rich_help_panel=FILES,
    ),
]

EvenOption = Annotated[
    str | None,
    typer.Option(
        "--even",
        metavar="TEMPLATE",
        help="File name of the even half, made from the whole sum's, such as '{folder}/{stem}_EVN.mrc'.",
        rich_help_panel=FILES,
    ),
]

OddOption = Annotated[
    str | None,
    typer.Option("--odd", metavar="TEMPLATE", help="File name of the odd half.", rich_help_panel=FILES),
]

PixelSizeOption = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        metavar="Å",
        help="Pixel size of the micrographs, for tables and files that lack it; it wins over the files' headers.",
        rich_help_panel=OPTICS,
    ),
]

VoltageOption = Annotated[
    float | None,
    typer.Option("--voltage", metavar="kV", help="Voltage, for tables that lack it.", rich_help_panel=OPTICS),
]

SphericalAberrationOption = Annotated[
    float | None,
    typer.Option("--cs", metavar="mm", help="Spherical aberration, for tables that lack it.", rich_help_panel=OPTICS),
]

AmplitudeContrastOption = Annotated[
    float | None,
    typer.Option(
        "--amplitude-contrast",
        metavar="FRACTION",
        help="Amplitude contrast, for tables that lack it, such as 0.1.",
        rich_help_panel=OPTICS,
    ),
]

AllowDenoisedOption = Annotated[
    bool,
    typer.Option(
        "--allow-denoised",
        help="Use images that n2n-deploy denoised before, which are refused by default: what looks like noise in them "
        "is signal.",
        rich_help_panel=FILES,
    ),
]

TtaOption = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Test-time augmentation: average the network over the eight flips and quarter turns of each image. Takes "
        "eight times as long.",
        rich_help_panel=PIXELS,
    ),
]

AugmentOption = Annotated[bool, typer.Option("--augment", help="The old name of --tta.", hidden=True)]


def gather(ctx: typer.Context, model: type[Model], **given: object) -> Model:
    """Build a model from the command's options, which are named like its fields.

    Args:
        ctx: of the command; what it has no option for keeps the model's default.
        model: what to build.
        given: values in place of the options'.

    Raises:
        UsageError: a value is invalid; names the option, what was given and what is accepted.
    """
    values = {name: ctx.params[name] for name in model.model_fields if name in ctx.params}
    try:
        return model(**values | given)
    except ValidationError as error:
        raise UsageError(_explain(ctx, error)) from error


def parse_precision(text: str) -> Precision:
    """Check the name of a precision that engines are compiled in; int8 is for CPUs, which compile none.

    Raises:
        UsageError: there is no such precision.
    """
    if text not in get_args(Precision) or text == "int8":
        raise UsageError(f"invalid --precision {text!r}; choose fp32, fp16 or bf16")
    return cast(Precision, text)


def _explain(ctx: typer.Context, error: ValidationError) -> str:
    """The first of the errors in one line."""
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), UsageError):
        return str(cause)
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    named = [str(part) for part in first["loc"]]
    flag = next((flags[name] for name in reversed(named) if name in flags), ".".join(named))
    return f"invalid {flag} {first['input']}: {expectation(first['msg'])}"


def expectation(message: str) -> str:
    """Pydantic's "Input should be a valid integer, unable to parse …" as "expected a valid integer"."""
    message = re.sub("Input should be (greater|less)", r"expected a value \1", message)
    return message.partition(", unable to parse")[0].replace("Input should be", "expected", 1)
