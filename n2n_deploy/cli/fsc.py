"""`n2n-deploy fsc`: the Fourier shell (or ring) correlation of two maps (or images)."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, save_config


def fsc_command(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A.mrc", help="A map, half map or image.")],
    second: Annotated[Path, typer.Argument(metavar="B.mrc", help="The other half, or a model's map.")],
    mask: Annotated[Path | None, typer.Option("--mask", help="Mask (0 to 1), applied to both maps.")] = None,
    model: Annotated[
        bool, typer.Option("--model", help="B is the map of a model: report the resolution at 0.5 instead of 0.143.")
    ] = False,
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", metavar="Å", help="Instead of the headers' pixel size."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for fsc.csv, fsc.json and fsc.png.", file_okay=False),
    ] = None,
    json_output: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Compute the Fourier shell correlation of two maps, or the ring correlation of two images.

    With a mask, the correlation that the mask itself causes is measured by phase randomisation and removed.
    """
    from n2n_deploy.refinement.map_comparison import compare_maps

    comparison = compare_maps(first, second, mask=mask, model=model, pixel_size=pixel_size)
    for warning in comparison.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if output is not None:
        comparison.write(output)
        save_config(ctx, output)
    summary = comparison.summary()
    if json_output:
        print_json(summary)
        return
    kind = f"{summary['curve']} against the {summary['against']}"
    box = "×".join(map(str, summary["box"]))
    out.print(f"{kind}, box {box}, {summary['pixel_size']:.4g} Å/px{', masked' if mask else ''}")
    for level, resolution in summary["resolution_at"].items():
        value = f"{resolution:.2f} Å" if resolution else f"beyond Nyquist ({summary['nyquist_resolution']:.2f} Å)"
        out.print(f"{level:>6}  {value}{'  ←' if float(level) == summary['threshold'] else ''}")
