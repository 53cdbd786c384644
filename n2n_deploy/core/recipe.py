"""`Recipe`: how a micrograph becomes network input. It travels with the patches, the checkpoint and the bundle."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


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
