"""`n2n-deploy demo`: the whole workflow on a real micrograph, in a few minutes, with a picture and numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, print_rows, save_config
from n2n_deploy.cli.progress import training_progress
from n2n_deploy.device.memory import keep_freed_memory

if TYPE_CHECKING:
    from n2n_deploy.demonstration import Demonstration


def demo_command(
    ctx: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("demo"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Minutes of each of the two trainings.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the split and the training.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Denoise a real micrograph that comes with the package with the general model, adapt it, train it on, and measure.

    Each electron of the micrograph is assigned at random to an even or an odd half. The general model is adapted to
    full exposures alone, and trained on with the halves, on the upper 80 % of the frame; the numbers and the close-up
    come from the rest.
    """
    from n2n_deploy.demonstration import run_demonstration
    from n2n_deploy.files.atomic import make_writable_folder

    make_writable_folder(output)
    keep_freed_memory()
    with training_progress(quiet=as_json) as progress:
        found = run_demonstration(
            output,
            minutes=minutes,
            seed=seed,
            announce=lambda text: err.print(f"[bold]·[/] {text}"),
            training_progress=progress,
        )
    save_config(ctx, output)
    if as_json:
        print_json(_as_dict(found))
        return
    out.print(_table(found))
    outputs = (("picture", found.picture), ("model", found.bundle), ("images", output / "denoised"))
    print_rows([(label, str(path)) for label, path in outputs])


def _as_dict(found: "Demonstration") -> dict[str, object]:
    """The result for a program."""
    return {
        name: {
            "snr_before": estimates.snr_noisy,
            "snr_after": estimates.snr_denoised,
            "recovered_signal_fraction": estimates.recovered_signal_fraction,
        }
        for name, estimates in found.estimates.items()
    } | {"picture": str(found.picture), "bundle": str(found.bundle), "seconds": found.seconds}


def _table(found: "Demonstration") -> Table:
    from n2n_deploy.demonstration import METHODS

    table = Table(title="On the part of the frame that was not used for training", title_justify="left")
    table.add_column("")
    for heading in ("SNR before", "SNR after", "recovered signal fraction"):
        table.add_column(heading, justify="right")
    for name, estimates in found.estimates.items():
        table.add_row(
            METHODS[name],
            f"{estimates.snr_noisy:.3f}",
            f"{estimates.snr_denoised:.2f}",
            f"{estimates.recovered_signal_fraction:.3f}",
        )
    return table
