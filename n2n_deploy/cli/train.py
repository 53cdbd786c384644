"""`n2n-deploy train`: a data set's micrographs or their even and odd halves in, a trained network out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, print_rows, save_config
from n2n_deploy.cli.models import InvertOption
from n2n_deploy.cli.options import (
    AllowDenoisedOption,
    AmplitudeContrastOption,
    DeviceOption,
    EvenOption,
    OddOption,
    PairsOption,
    PixelSizeOption,
    ProjectOption,
    SphericalAberrationOption,
    SuffixesOption,
    VoltageOption,
    gather,
)
from n2n_deploy.cli.progress import training_progress
from n2n_deploy.cli.train_options import (
    AlphaOption,
    AugmentOption,
    BatchesOption,
    BatchSizeOption,
    Bf16Option,
    CheckpointingOption,
    CompileOption,
    EpochsOption,
    HighpassOption,
    LearningRateOption,
    MaxMinutesOption,
    MaxResolutionOption,
    OptimiserOption,
    OverlapOption,
    PatchesOption,
    PatchSizeOption,
    PhaseFlipOption,
    PresetOption,
    RecombineOption,
    ResumeOption,
    ScheduleOption,
    SeedOption,
    StartOption,
    ValidationOption,
    WorkersOption,
    train_config,
)
from n2n_deploy.core.options import NamingOptions, OpticsOptions
from n2n_deploy.device.memory import keep_freed_memory

if TYPE_CHECKING:
    from n2n_deploy.train import Checkpoint, Preparation


def train_command(
    ctx: typer.Context,
    table: Annotated[
        Path,
        typer.Argument(
            help="Micrograph STAR file with CTF (RELION 3 to 5), with even and odd half sums where there are any."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; model.pt is written to it.")],
    preset: PresetOption = "auto",
    start: StartOption = None,
    invert: InvertOption = False,
    pairs: PairsOption = "auto",
    max_resolution: MaxResolutionOption = 4.5,
    highpass: HighpassOption = 200.0,
    phase_flip: PhaseFlipOption = True,
    patch_size: PatchSizeOption = 192,
    max_minutes: MaxMinutesOption = None,
    epochs: EpochsOption = 100,
    batches_per_epoch: BatchesOption = 500,
    batch_size: BatchSizeOption = 10,
    learning_rate: LearningRateOption = None,
    schedule: ScheduleOption = None,
    optimiser: OptimiserOption = None,
    augment: AugmentOption = True,
    recombine: RecombineOption = 2.5,
    alpha: AlphaOption = 1.0,
    patch_overlap: OverlapOption = 0.0,
    validation_fraction: ValidationOption = 0.05,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    suffixes: SuffixesOption = None,
    even_template: EvenOption = None,
    odd_template: OddOption = None,
    project: ProjectOption = None,
    pixel_size: PixelSizeOption = None,
    voltage: VoltageOption = None,
    spherical_aberration: SphericalAberrationOption = None,
    amplitude_contrast: AmplitudeContrastOption = None,
    allow_denoised: AllowDenoisedOption = False,
    patches: PatchesOption = None,
    device: DeviceOption = "auto",
    checkpointing: CheckpointingOption = False,
    bf16: Bf16Option = True,
    compile: CompileOption = False,
    workers: WorkersOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a denoiser on your micrographs, or on their even and odd halves (noise2noise).

    [bold]n2n-deploy train micrographs.star -o Run --suffixes DW,EVN,ODD[/]

    The network learns to predict one half of a micrograph's frames from the other: noise cannot be predicted,
    the specimen can. A few hundred micrographs are enough. Motion correction writes the halves (MotionCor2:
    -SplitSum 1; RELION: --even_odd_split under Additional arguments). Without halves, pairs are made of full exposures,
    by adding and subtracting noise of the micrograph's own spectrum; sums must be unbinned and unfiltered for that.

    [bold]--from general --max-minutes 3[/] fine-tunes the network that comes with the package, or another one.

    Writes to the output folder [bold]model.pt[/] (for n2n-deploy export), curves.png and curves.csv,
    validation.png (held-out patches before and after), noise.png (without halves), state.pt (for --resume) and the
    patches. Ctrl-C or --max-minutes end the training early with a usable model. Without a GPU, try --max-resolution 8
    --patch-size 96 --max-minutes 10.
    """
    from n2n_deploy.train import load_model, train

    settings = train_config(ctx, output / "state.pt" if resume else None)
    keep_freed_memory()
    with training_progress(quiet=as_json) as progress:
        path = train(
            table,
            output,
            settings,
            resume=resume,
            patches=patches,
            naming=gather(ctx, NamingOptions),
            optics=gather(ctx, OpticsOptions),
            allow_denoised=allow_denoised,
            workers=workers,
            progress=progress,
            prepared=_report_refusals,
        )
    model = load_model(path)
    ctx.params["preset"] = model.preset  # what auto meant here
    save_config(ctx, output)
    if as_json:
        print_json({"model": str(path), "step": model.step, **model.summary})
    else:
        _print_result(path, model)
    if model.summary["ended"] == "interrupted":
        raise typer.Exit(130)


def _report_refusals(result: "Preparation") -> None:
    """Print notes, and the micrographs that are left out of the training with the reasons."""
    for note in result.notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for name, reason in result.refused.items():
        err.print(f"[red]refused:[/] {escape(name)}: {escape(reason)}", soft_wrap=True)


def _print_result(path: Path, model: "Checkpoint") -> None:
    """Print what was made, and what to do next."""
    summary = model.summary
    ended = {"complete": "complete", "time": "ended by --max-minutes", "interrupted": "interrupted"}[summary["ended"]]
    minutes = summary["seconds"] / 60
    out.print(
        f"{ended}: {model.step} steps in {minutes:.1f} min on {summary['micrographs']} micrographs, "
        f"{summary['patches']} patches; {summary['micrographs_refused']} refused",
        soft_wrap=True,
    )
    files = (
        ("model", "model.pt"),
        ("curves", "curves.png"),
        ("held-out patches", "validation.png"),
        ("noise spectra", "noise.png"),
    )
    if summary.get("best_step") == 0:
        out.print("no step did better on held-out patches than the network to start from, which the model therefore is")
    elif summary.get("best_step", model.step) < model.step:
        out.print(f"the loss on held-out patches was lowest at step {summary['best_step']}; the model is that one's")
    # A run that was interrupted early has no curves yet.
    print_rows([(label, str(made)) for label, file in files if (made := path.with_name(file)).exists()])
    if summary["ended"] == "interrupted":
        out.print("next: continue with the same command and --resume")
    else:
        out.print(f"next: n2n-deploy export {escape(str(path))} -o model.n2n", soft_wrap=True)
