"""`n2n-deploy train`: the even and odd halves of a data set's micrographs in, a trained network out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.markup import escape

from n2n_deploy.cli.common import ConfigOption, JsonOption, err, out, print_json, save_config
from n2n_deploy.cli.halves import EvenOption, OddOption, ProjectOption, SuffixesOption, parse_suffixes
from n2n_deploy.cli.progress import training_progress
from n2n_deploy.errors import UsageError
from n2n_deploy.memory import keep_freed_memory

if TYPE_CHECKING:
    from n2n_deploy.train import Checkpoint, Preparation, TrainConfig

_RECIPE, _COURSE, _FILES, _MACHINE = "What the network sees", "The course of the training", "Files", "Machine"

RECIPE_OPTIONS = ("max_resolution", "highpass", "phase_flip", "patch_size")
CONFIG_OPTIONS = {
    "preset": "preset",
    "epochs": "epochs",
    "batches": "batches_per_epoch",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "schedule": "schedule",
    "max_minutes": "max_minutes",
    "augment": "augment",
    "overlap": "patch_overlap",
    "validation": "validation_fraction",
    "seed": "seed",
    "checkpointing": "checkpointing",
    "device": "device",
    "compile_network": "compile",
    "bf16": "bf16",
}
"""Parameter of the command → field of `TrainConfig`."""


def train_command(
    ctx: typer.Context,
    table: Annotated[
        Path,
        typer.Argument(help="Micrograph STAR file with CTF (RELION 3 to 5); the even and odd sums are needed."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; the network becomes model.pt in it.")
    ],
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="paper: the published network. fast: a residual U-Net, 13 times cheaper. small: narrower still, for "
            "little data. auto: paper on a GPU, fast elsewhere.",
        ),
    ] = "auto",
    max_resolution: Annotated[
        float,
        typer.Option(
            "--max-resolution",
            metavar="Å",
            help="Resolution kept: micrographs are shrunk to a pixel of half this. Finer costs time, and "
            "beyond what the data hold there is nothing to learn; 4.5 suits most data sets, 8 a quick look.",
            rich_help_panel=_RECIPE,
        ),
    ] = 4.5,
    highpass: Annotated[
        float,
        typer.Option(
            "--highpass",
            metavar="Å",
            help="Remove coarser features, such as ice gradients.",
            rich_help_panel=_RECIPE,
        ),
    ] = 200.0,
    phase_flip: Annotated[
        bool,
        typer.Option(
            "--phase-flip/--no-phase-flip",
            help="Multiply by the sign of the CTF; needs a table with CTF. The model remembers it.",
            rich_help_panel=_RECIPE,
        ),
    ] = True,
    patch_size: Annotated[
        int,
        typer.Option(
            "--patch-size",
            metavar="PIXELS",
            help="Side of the training patches, a multiple of 8.",
            rich_help_panel=_RECIPE,
        ),
    ] = 192,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            "--max-minutes",
            help="Train no longer than this, in all where a run is resumed, patches not counted; the learning rate "
            "falls to zero by then.",
            rich_help_panel=_COURSE,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs to train.", rich_help_panel=_COURSE)] = 100,
    batches: Annotated[int, typer.Option("--batches", help="Batches in an epoch.", rich_help_panel=_COURSE)] = 500,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Pairs of patches in a batch.", rich_help_panel=_COURSE)
    ] = 10,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="Adam's, at the start. By default 1e-4 with the paper's schedule, 7e-4 with the others.",
            rich_help_panel=_COURSE,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            help="paper: down by a quarter of the first rate in each quarter of the run. linear, cosine: to "
            "zero. By default linear with --max-minutes, else paper.",
            rich_help_panel=_COURSE,
        ),
    ] = None,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment/--no-augment",
            help="Swap even and odd, turn and mirror at random.",
            rich_help_panel=_COURSE,
        ),
    ] = True,
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap",
            help="Fraction of their side by which patches overlap; 0.5 makes more of few micrographs.",
            rich_help_panel=_COURSE,
        ),
    ] = 0.0,
    validation: Annotated[
        float,
        typer.Option("--validation", help="Fraction of the patches held out to watch.", rich_help_panel=_COURSE),
    ] = 0.05,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of the first weights and the choice of patches.", rich_help_panel=_COURSE),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in the output folder, with its options; begin where there is none.",
            rich_help_panel=_COURSE,
        ),
    ] = False,
    suffixes: SuffixesOption = None,
    even: EvenOption = None,
    odd: OddOption = None,
    project: ProjectOption = None,
    patches: Annotated[
        Path | None,
        typer.Option(
            "--patches",
            help="Folder of the patches, to share them between runs of one recipe. Default: OUTPUT/patches.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)
    ] = "auto",
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Trade time for GPU memory: activations are computed twice.",
            rich_help_panel=_MACHINE,
        ),
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16/--no-bf16",
            help="On a GPU, or a processor with AMX, compute in bfloat16 where safe.",
            rich_help_panel=_MACHINE,
        ),
    ] = True,
    compile_network: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="On a GPU, compile the network first; needs gcc and Python's headers.",
            rich_help_panel=_MACHINE,
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Micrographs prepared at once; by default one per core, at most 4.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a denoiser on the even and odd halves of your micrographs (noise2noise).

    [bold]n2n-deploy train micrographs.star -o Run --suffixes DW,EVN,ODD[/]

    The network learns to predict one half of a micrograph's frames from the other: noise cannot be predicted,
    the specimen can. A few hundred micrographs are enough. Make the halves in motion correction (MotionCor2:
    -SplitSum 1; RELION: --even_odd_split).

    Writes into the output folder [bold]model.pt[/] (for n2n-deploy export), curves.png and curves.csv,
    validation.png (held-out patches before and after), state.pt (for --resume) and the patches. Ctrl-C or
    --max-minutes end it early with a usable model. Without a GPU, try --max-resolution 8 --patch-size 96
    --max-minutes 10.
    """
    del config, preset, epochs, batches, batch_size, learning_rate, schedule, max_minutes, augment, overlap, validation
    del seed, checkpointing, device, compile_network, bf16, max_resolution, highpass, phase_flip, patch_size
    from n2n_deploy.train import load_model, train

    settings = _train_config(ctx, output / "state.pt" if resume else None)
    keep_freed_memory()
    with training_progress(quiet=as_json) as bar:
        path = train(
            table,
            output,
            settings,
            resume=resume,
            patches=patches,
            project=project,
            suffixes=parse_suffixes(suffixes),
            even_template=even,
            odd_template=odd,
            workers=workers,
            progress=bar,
            prepared=_report_refusals,
        )
    ctx.params.update({name: getattr(settings.recipe, name) for name in RECIPE_OPTIONS})
    model = load_model(path)
    settings = settings.model_copy(update={"preset": model.preset})
    ctx.params.update({name: getattr(settings, field) for name, field in CONFIG_OPTIONS.items()})
    ctx.params.update(learning_rate=settings.rate(0), schedule=settings.course)
    save_config(ctx, output)
    if as_json:
        print_json({"model": str(path), "step": model.step, **model.summary})
    else:
        _print_result(path, model)
    if model.summary["ended"] == "interrupted":
        raise typer.Exit(130)


def _train_config(ctx: typer.Context, state: Path | None) -> "TrainConfig":
    """The options as a TrainConfig; where a run is resumed, its own, with the options given now on top."""
    from n2n_deploy.train import TrainConfig
    from n2n_deploy.train.checkpoint import load_state

    resumed = state is not None and state.exists()
    values: dict[str, Any] = load_state(state)["config"] if state is not None and resumed else {}
    recipe: dict[str, Any] = dict(values.get("recipe", {}))

    def given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return not resumed or (source is not None and source.name != "DEFAULT")

    recipe |= {name: ctx.params[name] for name in RECIPE_OPTIONS if given(name)}
    values |= {field: ctx.params[name] for name, field in CONFIG_OPTIONS.items() if given(name)}
    try:
        return TrainConfig.model_validate({**values, "recipe": recipe})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][-1])
        option = next((name for name, field in CONFIG_OPTIONS.items() if field == option), option)
        raise UsageError(f"--{option.replace('_', '-')} {first['input']}: {first['msg']}") from error


def _report_refusals(result: "Preparation") -> None:
    """Name the micrographs that are not trained on, and say what else is to be known, above the bar."""
    for note in result.notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for name, reason in result.refused.items():
        err.print(f"[red]refused:[/] {escape(name)}: {escape(reason)}", soft_wrap=True)


def _print_result(path: Path, model: "Checkpoint") -> None:
    """Say what was made, and what to do next."""
    summary = model.summary
    ended = {"complete": "complete", "time": "ended by --max-minutes", "interrupted": "interrupted"}[summary["ended"]]
    minutes = summary["seconds"] / 60
    out.print(
        f"{ended}: {model.step} steps in {minutes:.1f} min on {summary['micrographs']} micrographs, "
        f"{summary['patches']} patches; {summary['micrographs_refused']} refused",
        soft_wrap=True,
    )
    for name, file in (("model", "model.pt"), ("curves", "curves.png"), ("held out", "validation.png")):
        if (made := path.with_name(file)).exists():  # a run that was interrupted early has no curves yet
            out.print(f"{name:<8} {made}", soft_wrap=True)
    if summary["ended"] == "interrupted":
        out.print("go on with the same command and --resume")
    else:
        out.print(f"next: n2n-deploy export {path} -o model.n2n")
