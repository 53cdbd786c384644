"""`EngineFacts`: what a compiled engine in a bundle was built for, and where it runs."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from n2n_deploy.core.options import Precision

TensorRTLibrary = Literal["tensorrt", "rtx"]
"""TensorRT, or TensorRT for RTX."""

Hardware = Literal["none", "ampere_plus", "same_compute_capability", "listed"]
"""Where an engine runs: on GPUs like the one that built it, on every GPU from Ampere on, on every GPU of its
compute capability, or on those of the listed compute capabilities."""

Shape = tuple[int, int, int, int]
"""(n, 1, height, width)."""

RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT for RTX builds for, in the order of the bits in an engine's header."""

_HEADER_BYTES = 64


class Profile(BaseModel):
    """Range of shapes that one optimisation profile accepts, and the one it is fastest for."""

    model_config = ConfigDict(frozen=True, extra="allow")

    minimum: Shape
    optimum: Shape
    maximum: Shape

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        triples = zip(self.minimum, self.optimum, self.maximum, strict=True)
        if not all(0 < low <= best <= high for low, best, high in triples):
            raise ValueError(f"not minimum ≤ optimum ≤ maximum: {self.minimum}, {self.optimum}, {self.maximum}")
        return self

    def takes(self, shape: Shape) -> bool:
        """Whether a batch of this shape lies within the profile."""
        return all(low <= n <= high for low, n, high in zip(self.minimum, shape, self.maximum, strict=True))


class EngineFacts(BaseModel):
    """One engine of a bundle, member `engines/<key>.engine`.

    Attributes:
        library: that built it and runs it; called "flavour" in the manifest's JSON.
        precision: of the ONNX graph it was built from.
        tensorrt_version: of the library that built it.
        compute_capabilities: of the GPUs it was built for.
        hardware: on which other GPUs it runs.
        version_compatible: whether later versions of TensorRT, and the lean runtime, run it.
        profiles: the shapes it accepts.
        layers: how many layers compute in each type.
        activation_bytes: GPU memory that its largest profile needs for activations; None if unknown.
        read_back: the fields that were read from the finished engine.
        not_read_back: fields known only from the builder's options → why.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    library: Annotated[TensorRTLibrary, Field(validation_alias="flavour", serialization_alias="flavour")]
    precision: Precision
    tensorrt_version: str
    compute_capabilities: tuple[Annotated[str, Field(pattern=r"^\d+\.\d$")], ...]
    hardware: Hardware
    version_compatible: bool = False
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1)]
    layers: dict[str, int] = Field(default_factory=dict)
    activation_bytes: int | None = None
    read_back: tuple[str, ...] = ()
    not_read_back: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the engine in its bundle: one for each combination of library, precision and GPUs."""
        version = self.tensorrt_version + ("+" if self.version_compatible else "")
        gpus = "ampere-plus" if self.hardware == "ampere_plus" else "-".join(self.compute_capabilities)
        return f"{self.library}-{version}-{self.precision}-sm{gpus.replace('.', '')}"

    def obstacle(self, library: TensorRTLibrary, version: str, capability: str) -> str | None:
        """Return why this engine does not run with a library and GPU; None if it does.

        Args:
            library: the installed one.
            version: of the installed library, "major.minor.patch.build".
            capability: the GPU's compute capability, "major.minor".
        """
        if library != self.library:
            return f"it is for {self.library}, not {library}"
        built, here = _numbers(self.tensorrt_version), _numbers(version)
        if self.version_compatible and not (built[0] == here[0] and built <= here):
            return f"it is for versions {self.tensorrt_version} to {built[0]}.x of {library}; {version} is installed"
        if not self.version_compatible and built != here:
            return f"it was built by {library} {self.tensorrt_version}; {version} is installed"
        if self.hardware == "ampere_plus":
            if _numbers(capability) < (8, 0):
                return f"it needs a GPU of compute capability 8.0 or later, not {capability}"
            return None
        if capability not in self.compute_capabilities:
            return f"it is for compute capability {', '.join(self.compute_capabilities)}, not {capability}"
        return None


def header_version(engine: bytes) -> str | None:
    """Return the version of the library that wrote a serialised engine, from its header; None if it has no such header.

    Bytes 24 to 27, as NVIDIA's own `trtexec --getPlanVersionOnly` reads them.
    """
    if len(engine) < _HEADER_BYTES or engine[:4] not in (b"ftrt", b"vtrt") or engine[4:8] != bytes(4):
        return None
    return ".".join(str(number) for number in engine[24:28])


def header_capabilities(engine: bytes) -> tuple[str, ...] | None:
    """Return the compute capabilities in the header of an RTX engine, one bit each; None for other files."""
    if header_version(engine) is None or engine[:4] != b"vtrt" or engine[28:32] != b"vtrt":
        return None
    mask = int.from_bytes(engine[32:36], "little")
    if not mask or mask >> len(RTX_CAPABILITIES):
        return None
    return tuple(name for bit, name in enumerate(RTX_CAPABILITIES) if mask >> bit & 1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
