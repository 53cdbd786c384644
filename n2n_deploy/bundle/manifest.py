"""`Manifest`: what a bundle says of itself — its maker, its use, its tolerances, its members' hashes."""

import json
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from n2n_deploy.bundle.engine_facts import EngineFacts
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.options import Precision
from n2n_deploy.core.recipe import RecipeRange
from n2n_deploy.core.version import __version__

FORMAT = 1
"""Version of the bundle's layout. It grows when older readers would misread a bundle, not with each new field."""

REQUIRES = "0.1.0"
"""The first n2n-deploy that reads `FORMAT`; older ones tell the user to update to it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Frozen; keeps fields that later versions added, so that rewriting a bundle does not lose them."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Member(_Part):
    """Size in bytes and SHA-256 of one member of the zip."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Deviation(_Part):
    """How far two outputs lie apart, in standard deviations of the reference: worst pixel and rms."""

    max: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rms: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def within(self, tolerance: "Deviation") -> bool:
        """Whether neither figure is above that of `tolerance`."""
        return self.max <= tolerance.max and self.rms <= tolerance.rms


class ParityResult(_Part):
    """ONNX Runtime against PyTorch, measured at export on one input shape (n, 1, height, width)."""

    precision: Precision
    shape: tuple[int, int, int, int]
    deviation: Deviation


class Quantisation(_Part):
    """What int8 costs, measured at export on held-out pairs of the training.

    Attributes:
        signal_loss: relative loss of the recovered signal against fp32; negative if it is a gain.
        input_range: the lowest and the highest input that the graph represents, in standard deviations of the image.
            It clips what lies beyond.
    """

    signal_loss: Annotated[float, Field(allow_inf_nan=False)]
    input_range: tuple[float, float]


class Manifest(_Part):
    """The bundle's `manifest.json`.

    Attributes:
        format: version of the layout.
        requires: the first n2n-deploy that reads this format.
        package_version: the n2n-deploy that wrote the bundle.
        created: when, UTC.
        preset: the network's preset.
        accepts: the recipes that the network takes; None if the bundle's recipe is the only one.
        halo: network pixels, a multiple of 8; tiles that see this much beyond themselves on every side are exact.
        tolerance: per precision, how far the golden outputs may lie from PyTorch's on any machine.
        parity: how far they lay at export.
        int8: facts of the int8 model; None if the bundle offers none.
        int8_refused: why it does not; None if it does, or was exported before int8 was supported.
        training: facts of the training from the checkpoint (steps, losses, …), for people.
        engines: compiled engines, key → facts; each is the member `engine_member(key)`.
        members: name → size and hash of every member but the manifest itself and its signature.
    """

    format: Annotated[int, Field(ge=1)] = FORMAT
    requires: str = REQUIRES
    package_version: str = __version__
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    preset: str
    accepts: RecipeRange | None = None
    halo: Annotated[int, Field(ge=0, le=4096, multiple_of=8)]
    tolerance: dict[Precision, Deviation]
    parity: tuple[ParityResult, ...] = ()
    int8: Quantisation | None = None
    int8_refused: str | None = None
    training: dict[str, JsonValue] = Field(default_factory=dict)
    engines: dict[str, EngineFacts] = Field(default_factory=dict)
    members: dict[str, Member] = Field(default_factory=dict)

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Read `manifest.json` of the bundle called `name`.

    Raises:
        BundleError: the format is newer than this package reads, or a field is missing or wrong.
    """
    try:
        fields = json.loads(content)
        version = fields["format"]
        if isinstance(version, int) and version > FORMAT:
            raise BundleError(
                f"{name}: made by a newer n2n-deploy (bundle format {version}; version {__version__} "
                f"here reads up to {FORMAT}); update to n2n-deploy ≥ {fields.get('requires', 'that version')}"
            )
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{name}: manifest.json: {where}: {first['msg']}; export the model again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{name}: manifest.json is not a manifest ({error}); export the model again") from error
