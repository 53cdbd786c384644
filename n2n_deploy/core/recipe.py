"""`Recipe`: how a micrograph becomes network input. It travels with the patches, the checkpoint and the bundle."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from n2n_deploy.core.errors import UsageError


class Recipe(BaseModel):
    """How pixels become network input (S2.1), the same in training and inference.

    Frozen and hashable, so that grids and filters can be cached per (shape, pixel size, recipe).

    Attributes:
        max_resolution: Å; the image is Fourier-cropped so that its Nyquist frequency is 1/max_resolution.
        highpass: Å; lower frequencies than 1/highpass (ice-thickness gradients) are removed.
        phase_flip: whether Fourier components are multiplied by the sign of the CTF.
        patch_size: pixels; side of the square training patches, a multiple of 8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_resolution: Annotated[float, Field(gt=0.5, le=50)] = 4.5
    highpass: Annotated[float, Field(gt=0)] = 200.0
    phase_flip: bool = True
    patch_size: Annotated[int, Field(ge=32, multiple_of=8)] = 192


class RecipeRange(BaseModel):
    """The recipes that one network was trained for, where that is more than one.

    Attributes:
        max_resolution: Å, the finest and the coarsest. The recipe's own lies between them and is the default.
        either_phase: whether the network takes flipped and unflipped phases; if not, only what the recipe says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_resolution: tuple[Annotated[float, Field(gt=0.5)], Annotated[float, Field(le=50)]]
    either_phase: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        finest, coarsest = self.max_resolution
        if finest > coarsest:
            raise ValueError(f"expected the finest, then the coarsest resolution in Å, not {finest:g}, {coarsest:g}")
        return self


def choose_recipe(
    default: Recipe,
    accepts: RecipeRange | None,
    model: str,
    *,
    max_resolution: float | None = None,
    phase_flip: bool | None = None,
) -> Recipe:
    """Return the recipe to follow, of those that a network takes.

    Args:
        default: the recipe of the model.
        accepts: the range of its recipes; None if it takes no other.
        model: its name, for messages.
        max_resolution: Å; None for the default's.
        phase_flip: whether to flip phases; None for what the default says.

    Raises:
        UsageError: the network was not trained for it.
    """
    finest, coarsest = accepts.max_resolution if accepts else (default.max_resolution, default.max_resolution)
    resolution = default.max_resolution if max_resolution is None else max_resolution
    if not finest <= resolution <= coarsest:
        trained = f"{finest:g} Å alone" if finest == coarsest else f"{finest:g} to {coarsest:g} Å"
        raise UsageError(f"{model}: was trained for {trained}, not for a max_resolution of {resolution:g} Å")
    flip = default.phase_flip if phase_flip is None else phase_flip
    if flip != default.phase_flip and not (accepts and accepts.either_phase):
        trained = "flipped" if default.phase_flip else "unflipped"
        raise UsageError(f"{model}: was trained on {trained} phases alone")
    return default.model_copy(update={"max_resolution": resolution, "phase_flip": flip})
