"""`Closing`: classes that free what they hold when their `with` block ends."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Base of classes that free what they hold when their `with` block ends."""

    @abstractmethod
    def close(self) -> None:
        """Free it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
