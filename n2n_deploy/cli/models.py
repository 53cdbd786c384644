"""How `denoise` and `evaluate` name models: `--model general|FILE`, or a last argument that is a bundle."""

from collections.abc import Sequence
from typing import Annotated

import typer

from n2n_deploy.cli.options import PIXELS
from n2n_deploy.core.errors import UsageError

_HELP = (
    "A bundle (MODEL.n2n) from n2n-deploy export, or general, the model that comes with the package; general by "
    "default. A last argument that ends in .n2n means the same."
)

ModelOption = Annotated[str | None, typer.Option("--model", metavar="general|FILE", help=_HELP)]

ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="general|FILE", help=f"{_HELP} Several models are compared side by side."),
]

ResolutionOption = Annotated[
    float | None,
    typer.Option(
        "--max-resolution",
        metavar="Å",
        help="Finest resolution that the network sees, for a model that takes a range, such as general. By default the "
        "model's own.",
        rich_help_panel=PIXELS,
    ),
]

InvertOption = Annotated[
    bool,
    typer.Option(
        "--invert",
        help="Protein is white in the micrographs. The network sees their contrast inverted; the output has that of "
        "the input.",
        rich_help_panel=PIXELS,
    ),
]


def split_models(ctx: typer.Context, micrographs: Sequence[str], named: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of a command into micrographs and models.

    A last argument that ends in `.n2n` is a model. So is what follows a table, for a table is given alone.

    Args:
        ctx: of the command; `micrographs` and `model` of its parameters become what is returned, so that a saved
            configuration says it.
        micrographs: the arguments.
        named: values of `--model`.

    Returns:
        The micrographs, and the models: at least one.

    Raises:
        UsageError: there is a model and no micrograph.
    """
    from n2n_deploy.bundle.general import GENERAL
    from n2n_deploy.io.micrograph_files import is_table

    sources, models = list(micrographs), list(named)
    source = ctx.get_parameter_source("model")
    on_the_line = models if source is not None and source.name == "COMMANDLINE" else []
    after_a_table = len(sources) == 2 and is_table(sources[0]) and not on_the_line
    if sources[-1].endswith(".n2n") or after_a_table:
        models = [*on_the_line, sources.pop()]
    if not sources:
        raise UsageError(f"{models[-1]}: is a model; name the micrographs before it")
    models = list(dict.fromkeys(models)) or [GENERAL]
    ctx.params["micrographs"] = sources
    ctx.params["model"] = models if isinstance(ctx.params["model"], list | tuple) else models[-1]
    return sources, models


def split_model(ctx: typer.Context, micrographs: Sequence[str], named: str | None) -> tuple[list[str], str]:
    """Split the arguments of a command that takes one model; see `split_models`.

    Raises:
        UsageError: there is a model and no micrograph, or there are two models.
    """
    sources, models = split_models(ctx, micrographs, [] if named is None else [named])
    if len(models) > 1:
        raise UsageError(f"two models, {' and '.join(models)}: name one of them")
    return sources, models[0]
