"""`TrainConfig`: every number of a training run, and the course of its learning rate."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from n2n_deploy.core.options import Device, Pairs
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.model import PRESETS

Schedule = Literal["paper", "linear", "cosine"]
Optimiser = Literal["adam", "muon"]

AUTO = "auto"
"""The preset that leaves the choice of the network to the device."""


class TrainConfig(BaseModel):
    """How to train; the defaults are the paper's (S2.3): 100 epochs of 500 batches of 10, Adam from 1e-4.

    Not the paper's are the network where there is no GPU, and the random windows of `augment`.

    Attributes:
        preset: which network; a key of `n2n_deploy.train.PRESETS`, or "auto": see `chosen`.
        recipe: how micrographs become patches.
        start: the trained network to start from: a checkpoint, a bundle that carries its weights, or "general", the
            package's own; its preset and recipe are the run's. None for fresh weights.
        invert: protein is white in the micrographs: the network sees them inverted, as with `denoise --invert`.
        epochs: the run has epochs × batches_per_epoch steps, unless `max_minutes` ends it sooner.
        batches_per_epoch: steps per epoch.
        batch_size: pairs of patches per step.
        learning_rate: Adam's at the start; None is 1e-4 with the paper's schedule and 7e-4 with the others,
            which fall to zero; half of that where the run starts from a trained network.
        schedule: "paper" lowers the rate by a quarter of its first value in each quarter of the run, "linear"
            and "cosine" let it fall to zero; None is "paper" for the preset `paper` without `max_minutes`, and "linear"
            elsewhere.
        optimiser: "adam", with weight normalisation, is the paper's (S2.3); "muon" learns faster (see
            `n2n_deploy.train.muon`). None is "adam" for the preset `paper` and "muon" for the others.
        max_minutes: end after this much optimisation (making the patches not counted), with the learning rate
            following the clock where that runs ahead of the steps.
        augment: random swaps of even and odd, the eight flips and rotations, and random windows of the patches.
        recombine: the halves of a pair are mixed at random so that the input has up to this many times their
            difference, or as small a part of it (see `n2n_deploy.train.recombine`); 1 leaves them as they are.
        pairs: "halves" trains on even and odd halves, "recorrupted" on full exposures alone (see
            `n2n_deploy.train.exposures`), "auto" on halves where table or options name them.
        alpha: of recorrupted pairs y + αz and y − z/α. Less brings the input nearer to the exposure's own noise and
            makes the target noisier.
        patch_overlap: fraction of their side by which neighbouring patches overlap. More than 0 makes more of few
            micrographs.
        validation_fraction: of the patches, held out from training.
        seed: of the first weights and of the choice of patches.
        checkpointing: recompute activations in the backward pass: less memory, more time.
        device: "auto" (a GPU where there is one), "cpu", "gpu" or "cuda", or "cuda:1".
        bf16: compute in bfloat16 where that is safe (autocast), on a GPU or a processor with AMX.
        compile: on a GPU, compile the network with `torch.compile`, which needs a C compiler and Python's headers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = AUTO
    recipe: Recipe = Recipe()
    start: str | None = None
    invert: bool = False
    epochs: Annotated[int, Field(ge=1)] = 100
    batches_per_epoch: Annotated[int, Field(ge=1)] = 500
    batch_size: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    schedule: Schedule | None = None
    optimiser: Optimiser | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    augment: bool = True
    recombine: Annotated[float, Field(ge=1, le=4)] = 2.5
    pairs: Pairs = "auto"
    alpha: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    patch_overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.0
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    seed: Annotated[int, Field(ge=0)] = 0
    checkpointing: bool = False
    device: Device = "auto"
    bf16: bool = True
    compile: bool = False

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        known = (AUTO, *PRESETS)
        if preset not in known:
            raise PydanticCustomError("preset", "choose one of {known}", {"known": ", ".join(known)})
        return preset

    def chosen(self, device_type: str) -> "TrainConfig":
        """The same with a preset that names a network: for "auto", `paper` on a GPU and `fast` elsewhere.

        On CPUs `benchmarks.front` finds `fast` the best at equal steps; `small` is as good in a training of a minute,
        and on a single micrograph. On GPUs nothing cheaper than the paper's network was measured against it yet.
        """
        if self.preset != AUTO:
            return self
        return self.model_copy(update={"preset": "paper" if device_type == "cuda" else "fast"})

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.batches_per_epoch

    @property
    def window(self) -> int:
        """Side of what a step sees of a patch, in pixels: about five sixths, a multiple of 8."""
        side = self.recipe.patch_size
        return side - side // 6 // 8 * 8 if self.augment else side

    @property
    def course(self) -> Schedule:
        """The schedule that holds."""
        if self.schedule is not None:
            return self.schedule
        return "paper" if self.preset == "paper" and self.max_minutes is None else "linear"

    @property
    def method(self) -> Optimiser:
        """The optimiser that holds."""
        return self.optimiser or ("adam" if self.preset == "paper" else "muon")

    def done(self, step: int, seconds: float) -> float:
        """Fraction of the run that is over, by steps or by the clock, whichever is further; 1 at the end."""
        by_clock = 0.0 if self.max_minutes is None else seconds / (60 * self.max_minutes)
        return min(1.0, max(step / self.steps, by_clock))

    def rate(self, done: float) -> float:
        """Learning rate when a fraction `done` of the run is over.

        S2.3 says "initialize the learning rate at 1E-4 and decrement it by ¼ every 25 epochs" of 100. A
        decrement is a subtraction, so the paper's course here is 1, ¾, ½, ¼ of 1e-4 in the four quarters of
        the run. (×¾ would be 1, 0.75, 0.56, 0.42; the published program's code does neither: it halves, 1, ½,
        ¼, ⅛.)
        """
        course = self.course
        # From a trained network, 300 steps on a real micrograph did best from 3.5e-4 on, and hardly worse from twice or
        # half of it: no first step is so large that it would need a warm-up.
        fresh = 1e-4 if course == "paper" else 7e-4
        first = self.learning_rate or (fresh if self.start is None else fresh / 2)
        if course == "paper":
            return first * (1 - min(3, math.floor(4 * done)) / 4)
        if course == "linear":
            return first * (1 - done)
        return first * (1 + math.cos(math.pi * done)) / 2


RESUMABLE = {
    "epochs",
    "max_minutes",
    "checkpointing",
    "device",
    "bf16",
    "compile",
    "schedule",
    "learning_rate",
}
"""What a resumed run may change; anything else would make it another run."""
