"""`n2n-deploy simulate`: micrographs with known ground truth."""

import re
from pathlib import Path
from typing import Annotated

import typer

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, print_json, print_rows, save_config
from n2n_deploy.cli.progress import LateProgress
from n2n_deploy.core.errors import UsageError

_MICROSCOPE = "Microscope"


def simulate_command(
    ctx: typer.Context,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder.", file_okay=False)],
    micrographs: Annotated[int, typer.Option("--micrographs", "-n", help="Number of micrographs.", min=1)] = 10,
    size: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT in pixels.")] = "2048x2048",
    pixel_size: Annotated[float, typer.Option("--pixel-size", help="Å per pixel.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives the same files.", min=0)] = 0,
    specimen: Annotated[
        str,
        typer.Option(
            "--specimen",
            help="proteasome, rubisco, clpb, hsp70, cand1-cul1-roc1, hsp90, p97, hsp110-hsp70, ssb1, get3, esterase, "
            "ribosome-30s or cav1.1.",
        ),
    ] = "proteasome",
    particles: Annotated[
        int | None,
        typer.Option(
            "--particles",
            help="Particles on each micrograph; 0 is empty ice. By default they cover 30 % of it.",
            min=0,
        ),
    ] = None,
    dose: Annotated[
        float,
        typer.Option("--dose", help="Total dose of both halves, in electrons per Å².", rich_help_panel=_MICROSCOPE),
    ] = 40.0,
    voltage: Annotated[float, typer.Option("--voltage", help="Voltage in kV.", rich_help_panel=_MICROSCOPE)] = 300.0,
    defocus: Annotated[
        tuple[float, float],
        typer.Option("--defocus", help="Lowest and highest underfocus in Å.", rich_help_panel=_MICROSCOPE),
    ] = (8000.0, 25000.0),
    astigmatism: Annotated[
        float,
        typer.Option(
            "--astigmatism",
            help="Largest difference between defocus U and V in Å.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = 500.0,
    phase_shift: Annotated[
        float,
        typer.Option("--phase-shift", help="Of a phase plate, in degrees.", rich_help_panel=_MICROSCOPE),
    ] = 0.0,
    b_factor: Annotated[
        float,
        typer.Option("--b-factor", help="B factor of the envelope exp(-B s²/4) in Å².", rich_help_panel=_MICROSCOPE),
    ] = 120.0,
    ice_gradient: Annotated[
        float,
        typer.Option(
            "--ice-gradient",
            help="Largest relative difference in intensity between thin and thick ice.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = 0.1,
    thickness: Annotated[
        float,
        typer.Option("--thickness", help="Of the ice in Å; it gives the grain.", rich_help_panel=_MICROSCOPE),
    ] = 300.0,
    detector: Annotated[
        str,
        typer.Option(
            "--detector",
            help="Whose DQE lowers the signal: perfect, K2, K3, Falcon 3 or Falcon 4.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = "K3",
    contrast: Annotated[
        float,
        typer.Option(
            "--contrast",
            help="What the protein scatters over what free atoms at rest would.",
            rich_help_panel=_MICROSCOPE,
        ),
    ] = 0.5,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Simulate micrographs of a protein in ice, with even and odd halves and the noiseless truth.

    Writes [bold]OUT/micrographs.star[/] (RELION 3.1, with defocus and the names of the halves),
    [bold]OUT/micrographs/mic_0001_{DW,EVN,ODD}.mrc[/] (electrons per pixel),
    [bold]OUT/truth/mic_0001.mrc[/] (the same without noise) and [bold]OUT/truth/particles.star[/] (positions
    and orientations). Particles are dark and have about the signal-to-noise ratio of real micrographs.
    """
    from n2n_deploy.simulate import simulate

    shape = _shape(size)
    with LateProgress(console=err, transient=True, disable=json_output) as bar:
        task = bar.add_task("simulating", total=micrographs)

        def progress(done: int, total: int) -> None:
            bar.start()
            bar.update(task, completed=done, total=total)

        star = simulate(
            output,
            micrographs,
            shape,
            pixel_size,
            seed,
            specimen=specimen,
            particles=particles,
            dose=dose,
            voltage=voltage,
            defocus=defocus,
            astigmatism=astigmatism,
            phase_shift=phase_shift,
            b_factor=b_factor,
            ice_gradient=ice_gradient,
            thickness=thickness,
            detector=detector,
            contrast=contrast,
            progress=progress,
        )
    save_config(ctx, output)
    if json_output:
        print_json({"micrographs": micrographs, "star": star, "truth": output / "truth"})
        return
    print_rows([("micrographs", str(star)), ("ground truth", str(output / "truth"))])


def _shape(size: str) -> tuple[int, int]:
    """(ny, nx) from WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", size)
    if match is None:
        raise UsageError(f"invalid --size {size!r}; use WIDTHxHEIGHT in pixels, e.g. 2048x2048")
    return int(match[2]), int(match[1])
