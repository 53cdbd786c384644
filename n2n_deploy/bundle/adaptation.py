"""`Adaptation`: what a bundle that was adapted to a table's micrographs says of that, in the facts of its training."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from n2n_deploy.bundle.archive import Bundle

FACT = "adaptation"
"""Its name among the facts of the training."""


class Adaptation(BaseModel):
    """An adaptation that is to be made, or was.

    Attributes:
        key: hash of all the others.
        model: file name of the bundle that is adapted.
        hash: its short hash.
        minutes: of training.
        rows: a hash for each row of the table that it is adapted to.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    model: str
    hash: str
    minutes: float
    rows: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> Self | None:
        """Return what an adapted bundle says; None for any other."""
        try:
            return cls.model_validate(bundle.manifest.training.get(FACT))
        except ValidationError:
            return None

    @property
    def text(self) -> str:
        """In one line, for people."""
        return f"from {self.model} ({self.hash}), to {len(self.rows)} micrographs for {self.minutes:g} min"
