"""A real browser for the pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import open_browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, started once."""
    yield from open_browser(tmp_path_factory.mktemp("profile"))
