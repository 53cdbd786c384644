"""`n2n-deploy compile`: add TensorRT engines to a bundle, built for the sizes of its micrographs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json
from n2n_deploy.cli.models import ResolutionOption
from n2n_deploy.cli.options import parse_precision
from n2n_deploy.core.errors import UsageError

if TYPE_CHECKING:
    from n2n_deploy.bundle.engine_facts import TensorRTLibrary
    from n2n_deploy.core.options import Precision
    from n2n_deploy.core.recipe import Recipe
    from n2n_deploy.export.tensorrt_engine import Compiled

_SHAPES, _BUILD = "Input sizes", "Build"


def compile_command(
    model: Annotated[Path, typer.Argument(help="The bundle (MODEL.n2n, or general) to add engines to.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="tensorrt: for the GPU of this machine. rtx: TensorRT for RTX, for GeForce and RTX GPUs, "
            "built on any machine, with or without a GPU.",
        ),
    ],
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="WxH,…",
            help="Micrograph sizes in pixels, such as 5760x4092,4096x4096; with --pixel-size.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", metavar="Å", help="Pixel size of those micrographs.", rich_help_panel=_SHAPES),
    ] = None,
    star: Annotated[
        Path | None,
        typer.Option(
            "--star",
            help="Read sizes and pixel sizes from the micrographs of a table.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            "--tile",
            metavar="WxH",
            help="Build for exact tiles of this many network pixels instead, for micrographs of any size.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    max_resolution: ResolutionOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Largest batch size.", rich_help_panel=_SHAPES)] = 1,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="fp32, fp16 or bf16; several, separated by commas, give one engine each.",
            rich_help_panel=_BUILD,
        ),
    ] = "fp16",
    compute_capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            metavar="CC,…",
            help="GPUs to build for (rtx): 7.5 Turing, 8.0 and 8.6 Ampere, 8.9 Ada, 12.0 Blackwell. "
            "By default 8.0, 8.6, 8.9 and 12.0.",
            rich_help_panel=_BUILD,
        ),
    ] = None,
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="Run on every GPU from Ampere on and with later versions of TensorRT, a little slower "
            "(tensorrt); run on every GPU that the library supports (rtx).",
            rich_help_panel=_BUILD,
        ),
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            help="File that keeps kernel timings, to speed up the next build (tensorrt).",
            rich_help_panel=_BUILD,
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level",
            min=0,
            max=5,
            help="How long to search for fast kernels; the library's default if not given.",
            rich_help_panel=_BUILD,
        ),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Add TensorRT engines to a bundle.

    An engine is built for micrographs of the given sizes, after cropping to the network's resolution, and runs all
    smaller ones too. Its properties are read back from the finished engine and written to the bundle's manifest.
    Compiling drops the bundle's signature: sign it afterwards.

    [bold]Examples[/]

      n2n-deploy compile model.n2n --target rtx --sizes 5760x4092 --pixel-size 0.83

      n2n-deploy compile model.n2n --target tensorrt --star micrographs.star --precision fp16,bf16
    """
    del config
    library = _library(target)
    precisions = _precisions(precision)

    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.bundle.engine_facts import RTX_CAPABILITIES
    from n2n_deploy.engines.tensorrt.profiles import make_profiles
    from n2n_deploy.export.tensorrt_engine import compile_bundle

    if compute_capability and library == "tensorrt":
        raise UsageError("--compute-capability is for --target rtx; TensorRT builds for the GPU it runs on")
    capabilities = tuple(part.strip() for part in compute_capability.split(",")) if compute_capability else ()
    if portable and library == "rtx" and not capabilities:
        # Turing has no bfloat16.
        capabilities = RTX_CAPABILITIES[1:] if "bf16" in precisions else RTX_CAPABILITIES
    bundle = Bundle.open(model)
    shapes = _network_shapes(bundle.with_recipe(max_resolution).recipe, sizes, pixel_size, star, tile)
    golden = bundle.golden()[0].shape
    compiled = compile_bundle(
        bundle,
        library,
        precisions,
        make_profiles(shapes, must_take=(golden[2], golden[3]), batch=batch),
        compute_capabilities=capabilities,
        portable=portable,
        timing_cache=timing_cache,
        optimization_level=optimization_level,
        progress=lambda name: err.print(f"building the {name} engine …"),
    )
    if json:
        print_json([{"key": engine.key, "bytes": engine.size, **engine.facts.model_dump()} for engine in compiled])
        return
    _show(model, compiled)


def _library(target: str) -> "TensorRTLibrary":
    if target not in ("tensorrt", "rtx"):
        raise UsageError(f"invalid --target {target!r}; choose tensorrt or rtx")
    return cast("TensorRTLibrary", target)


def _precisions(text: str) -> "list[Precision]":
    return list(dict.fromkeys(parse_precision(part.strip()) for part in text.split(",")))


def _network_shapes(
    recipe: "Recipe", sizes: str | None, pixel_size: float | None, star: Path | None, tile: str | None
) -> list[tuple[int, int]]:
    """Sizes (height, width) of the network's input for the micrographs or tiles that the user named."""
    from n2n_deploy.imaging.fourier import MULTIPLE, network_shape

    if sum(option is not None for option in (sizes, star, tile)) != 1:
        raise UsageError("give exactly one of --sizes (with --pixel-size), --star and --tile")
    if tile is not None:
        height, width = _size(tile)
        if height % MULTIPLE or width % MULTIPLE:
            raise UsageError(f"--tile {tile}: the sides must be multiples of {MULTIPLE} network pixels")
        return [(height, width)]
    if star is not None:
        from n2n_deploy.io.mrc import read_header
        from n2n_deploy.io.star import read_micrographs

        table = read_micrographs(star, need_ctf=False, pixel_size=pixel_size)
        return [
            network_shape(read_header(micrograph.path).shape, micrograph.optics.pixel_size, recipe.max_resolution)
            for micrograph in table.micrographs
        ]
    if pixel_size is None:
        raise UsageError("--sizes needs --pixel-size, in Å")
    assert sizes is not None
    return [network_shape(_size(text), pixel_size, recipe.max_resolution) for text in sizes.split(",")]


def _size(text: str) -> tuple[int, int]:
    """Return (height, width) of "5760x4092": width first, as cameras are described."""
    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError as error:
        raise UsageError(f"invalid size {text!r}; write width x height in pixels, such as 5760x4092") from error
    if min(width, height) <= 0:
        raise UsageError(f"invalid size {text!r}; both sides must be above 0")
    return height, width


def _show(model: Path, compiled: "list[Compiled]") -> None:
    table = Table("engine", "GPUs", "largest input", "MB", box=None)
    for engine in compiled:
        facts = engine.facts
        largest = max((profile.maximum for profile in facts.profiles), key=lambda shape: shape[2] * shape[3])
        table.add_row(
            engine.key,
            "8.0 and later" if facts.hardware == "ampere_plus" else ", ".join(facts.compute_capabilities),
            f"{largest[3]}×{largest[2]}",
            f"{engine.size / 1e6:.1f}",
        )
    out.print(table)
    unread = {reason: names for engine in compiled for reason, names in _unread(engine).items()}
    for reason, names in unread.items():
        out.print(f"[dim]requested, but not read back from the engine ({escape(reason)}): {', '.join(names)}[/]")
    out.print(
        f"added {len(compiled)} to {escape(str(model))}; sign it again if your nodes require signatures.",
        soft_wrap=True,
    )


def _unread(engine: "Compiled") -> dict[str, list[str]]:
    """Reason → the facts that could not be read back."""
    reasons: dict[str, list[str]] = {}
    for name, reason in engine.facts.not_read_back.items():
        reasons.setdefault(reason, []).append(name)
    return reasons
