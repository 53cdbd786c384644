"""The options of `n2n-deploy train`: what the network sees and how it is trained, and the `TrainConfig` they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_deploy.cli.options import FILES, MACHINE, gather
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.io.star import has_ctf

if TYPE_CHECKING:
    from n2n_deploy.train import TrainConfig

_RECIPE, _COURSE = "Network input", "Training"

PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="paper: the published network. fast: a residual U-Net, 13 times cheaper. small: narrower still, for "
        "little data. auto: paper on a GPU, fast elsewhere.",
    ),
]

StartOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="Start from a trained network: general (the package's own), a bundle, or a model.pt. Preset and recipe "
        "are its own; a few minutes are enough.",
    ),
]

MaxResolutionOption = Annotated[
    float,
    typer.Option(
        "--max-resolution",
        metavar="Å",
        help="Finest resolution kept; micrographs are downsampled to half this as pixel size. Finer takes longer, and "
        "beyond the signal in the data there is nothing to learn; 4.5 suits most data sets, 8 a quick look.",
        rich_help_panel=_RECIPE,
    ),
]

HighpassOption = Annotated[
    float,
    typer.Option(
        "--highpass", metavar="Å", help="Remove coarser features, such as ice gradients.", rich_help_panel=_RECIPE
    ),
]

PhaseFlipOption = Annotated[
    bool,
    typer.Option(
        "--phase-flip/--no-phase-flip",
        help="Multiply by the sign of the CTF, which the table must have. The model remembers it.",
        rich_help_panel=_RECIPE,
    ),
]

PatchSizeOption = Annotated[
    int,
    typer.Option(
        "--patch-size",
        metavar="PIXELS",
        help="Side of the training patches, a multiple of 8.",
        rich_help_panel=_RECIPE,
    ),
]

MaxMinutesOption = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        help="Train for at most this long, in total if a run is resumed, not counting the making of patches. The "
        "learning rate falls to zero by then.",
        rich_help_panel=_COURSE,
    ),
]

EpochsOption = Annotated[int, typer.Option("--epochs", help="Number of epochs.", rich_help_panel=_COURSE)]

BatchesOption = Annotated[int, typer.Option("--batches", help="Batches in an epoch.", rich_help_panel=_COURSE)]

BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", help="Pairs of patches in a batch.", rich_help_panel=_COURSE)
]

LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Initial learning rate of Adam. By default 1e-4 with the paper's schedule, 7e-4 with the others, and half "
        "of that with --from.",
        rich_help_panel=_COURSE,
    ),
]

ScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Learning rate. paper: lowered by a quarter of its initial value after each quarter of the run. linear, "
        "cosine: to zero. By default linear with --max-minutes, otherwise paper.",
        rich_help_panel=_COURSE,
    ),
]

OptimiserOption = Annotated[
    str | None,
    typer.Option(
        "--optimiser",
        help="adam: as published, with weight normalisation. muon: learns faster. By default adam for paper, muon "
        "for the other presets.",
        rich_help_panel=_COURSE,
    ),
]

RecombineOption = Annotated[
    float,
    typer.Option(
        "--recombine",
        min=1,
        max=4,
        help="Mix even and odd at random so that the input has up to this many times their difference; 1: never.",
        rich_help_panel=_COURSE,
    ),
]

AlphaOption = Annotated[
    float,
    typer.Option(
        "--alpha",
        min=0.25,
        max=4,
        help="Of recorrupted pairs y + αz and y − z/α. Less than 1: an input nearer to the exposure, a noisier target.",
        rich_help_panel=_COURSE,
    ),
]

AugmentOption = Annotated[
    bool,
    typer.Option(
        "--augment/--no-augment",
        help="Randomly swap even and odd, flip, rotate by quarter turns, and shift the window.",
        rich_help_panel=_COURSE,
    ),
]

OverlapOption = Annotated[
    float,
    typer.Option(
        "--overlap",
        help="Fraction of their side by which patches overlap; 0.5 makes more of few micrographs.",
        rich_help_panel=_COURSE,
    ),
]

ValidationOption = Annotated[
    float,
    typer.Option(
        "--validation", help="Fraction of the patches held out to measure the validation loss.", rich_help_panel=_COURSE
    ),
]

SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", help="Random seed of the initial weights and the choice of patches.", rich_help_panel=_COURSE
    ),
]

ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in the output folder with its options; start one if there is none.",
        rich_help_panel=_COURSE,
    ),
]

PatchesOption = Annotated[
    Path | None,
    typer.Option(
        "--patches",
        help="Folder of the patches, to share them between runs of one recipe. By default OUTPUT/patches.",
        rich_help_panel=FILES,
    ),
]

CheckpointingOption = Annotated[
    bool,
    typer.Option(
        "--checkpointing",
        help="Save GPU memory by computing activations twice, which takes longer.",
        rich_help_panel=MACHINE,
    ),
]

Bf16Option = Annotated[
    bool,
    typer.Option(
        "--bf16/--no-bf16",
        help="Compute in bfloat16 where safe, on a GPU or a processor with AMX.",
        rich_help_panel=MACHINE,
    ),
]

CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network for the GPU first; needs gcc and Python's headers.",
        rich_help_panel=MACHINE,
    ),
]

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Micrographs cut into patches concurrently. By default one per core, at most 4.",
        rich_help_panel=MACHINE,
    ),
]


def train_config(ctx: typer.Context, state: Path | None) -> "TrainConfig":
    """The options as a `TrainConfig`, with the options given on top of those of the run that is resumed.

    Those not given for a new run that starts from a trained network follow that network's recipe.

    Args:
        ctx: of the command, whose parameters are named like the fields of `TrainConfig` and `Recipe`.
        state: `state.pt` of the run to resume; None, or missing, for a new run.

    Raises:
        UsageError: a value is invalid.
        DataError: the state, or the network to start from, cannot be read.
        BundleError: the bundle to start from carries no weights, or is damaged.
    """
    from n2n_deploy.train import TrainConfig, load_checkpoint
    from n2n_deploy.train.checkpoint import load_state

    resumed = state is not None and state.exists()
    earlier: dict[str, Any] = load_state(state)["config"] if state is not None and resumed else {}
    recipe = earlier.pop("recipe", {})
    if not resumed and ctx.params["start"] is not None:
        network = load_checkpoint(ctx.params["start"])
        recipe = network.recipe.model_dump()
        if network.summary.get("accepts", {}).get("either_phase"):  # as `denoise` does
            recipe["phase_flip"] = has_ctf(ctx.params["table"], gather(ctx, NamingOptions))
    for values, model in ((earlier, TrainConfig), (recipe, Recipe)):
        for name in values.keys() & model.model_fields.keys() & ctx.params.keys():
            source = ctx.get_parameter_source(name)
            if source is None or source.name == "DEFAULT":
                ctx.params[name] = values[name]
    return gather(ctx, TrainConfig, recipe=gather(ctx, Recipe))
