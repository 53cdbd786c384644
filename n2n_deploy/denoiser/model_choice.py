"""Models opened for some micrographs, each with one recipe chosen of those that its network takes."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.general import GENERAL
from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.io.star import has_ctf
from n2n_deploy.io.star_document import StarDocument

Source = Path | str | Sequence[Path | str]
Model = Bundle | Path | str


def open_model(
    model: Model | None,
    source: Source | StarDocument,
    naming: NamingOptions | None = None,
    max_resolution: float | None = None,
) -> Bundle:
    """Open a model for some micrographs.

    A network that takes flipped and unflipped phases gets those of a table with CTFs flipped, all of them, and those of
    other tables and files as they are. A table that cannot be read yet, as at the start of a data collection, is taken
    for what the model's own recipe says.

    Args:
        model: an open bundle, the path of one, or "general"; None for the general model.
        source: the micrographs, as `read_micrographs` takes them.
        naming: how files are found.
        max_resolution: Å; None for the model's own.

    Raises:
        BundleError: the model is damaged.
        HostError: there is no general model.
        UsageError: the model was not trained for the resolution.
    """
    model = GENERAL if model is None else model
    bundle = model if isinstance(model, Bundle) else Bundle.open(model)
    flip: bool | None = None
    if bundle.accepts is not None and bundle.accepts.either_phase:
        with suppress(DataError):  # whoever reads the table tells
            flip = has_ctf(source, naming)
    return bundle.with_recipe(max_resolution, phase_flip=flip)


def open_alike(
    models: Sequence[Model], source: Source, naming: NamingOptions | None = None, max_resolution: float | None = None
) -> list[Bundle]:
    """Open several models to compare them: those that take a range of recipes follow the first that takes one alone.

    Raises:
        As for `open_model`.
    """
    bundles = [model if isinstance(model, Bundle) else Bundle.open(model) for model in models]
    fixed = next((bundle.recipe for bundle in bundles if bundle.accepts is None), None)
    opened = []
    for bundle in bundles:
        if bundle.accepts is None or fixed is None:
            opened.append(open_model(bundle, source, naming, max_resolution))
            continue
        finest, coarsest = bundle.accepts.max_resolution
        nearest = min(max(fixed.max_resolution, finest), coarsest) if max_resolution is None else max_resolution
        flip = fixed.phase_flip if bundle.accepts.either_phase else None
        opened.append(bundle.with_recipe(nearest, phase_flip=flip))
    return opened
