"""`n2n-deploy angles`: angular distances between two refinements of the same particles."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, out, print_json, save_config


def angles_command(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A.star", help="Particle table of one refinement.")],
    second: Annotated[Path, typer.Argument(metavar="B.star", help="Particle table of the other.")],
    symmetry: Annotated[
        str,
        typer.Option("--symmetry", "--sym", help="Point group of the map, as RELION names it: C1, D7, T, O, I2, …"),
    ] = "C1",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for angles.csv, angles.json and a histogram.", file_okay=False),
    ] = None,
    json_output: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure the angular distances between two sets of particle orientations (RELION Euler angles).

    Particles are matched by image name, or by micrograph and coordinates if they were extracted twice. If both
    tables have coordinates, a match by name must agree with them.
    The distance is the angle of the rotation between the two orientations, the smallest over the symmetry mates.
    The arccos of the quaternions' inner product, which the paper gives, is half of it.
    """
    from n2n_deploy.refinement.angles import compare

    distances = compare(first, second, symmetry)
    if output is not None:
        distances.write(output)
        save_config(ctx, output)
    summary = distances.summary()
    if json_output:
        print_json(summary)
        return
    quaternion = summary["quaternion_angle"]
    below = summary["fraction_below"]["5_deg"]
    out.print(f"{summary['matched']} particles, matched by {summary['matched_by']}, symmetry {summary['symmetry']}")
    if sum(distances.unmatched):
        only = [f"{count} only in {path}" for count, path in zip(distances.unmatched, (first, second), strict=True)]
        out.print(f"[yellow]{escape(', '.join(only))}[/]")
    out.print(f"rotation angle      median {summary['median_deg']:.3f}°  mean {summary['mean_deg']:.3f}°")
    out.print(f"arccos|<q1,q2>|     median {quaternion['median_deg']:.3f}°  mean {quaternion['mean_deg']:.3f}°")
    out.print(f"within 5°           {100 * below:.1f} % of the particles")
