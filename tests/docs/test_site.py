"""The site builds without a warning, is complete, and asks no other host for anything."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from n2n_deploy.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


class _Images(HTMLParser):
    """Collects the pictures of a page, and what the page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.alternatives: list[str | None] = []
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        if tag == "img":
            self.alternatives.append(values.get("alt"))
        loaded = values.get("href") if tag == "link" else values.get("src") if tag in ("script", "img") else None
        if loaded and re.match(r"(https?:)?//", loaded):
            self.elsewhere.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (pip install 'n2n-deploy[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _pages(site: Path) -> dict[str, str]:
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = _pages(site)["reference/cli.html"]
    for name in COMMANDS:
        assert f'<h2 id="{name}">' in page
    for option in ("--max-resolution", "--average-halves", "--retry-failed", "--truth", "--compute-capability"):
        assert f"<code>{option}" in page
    assert "[bold]" not in page


def test_the_python_reference_shows_parameters_and_errors(site: Path) -> None:
    page = _pages(site)["reference/python.html"]
    for text in ("n2n_deploy.denoise", "n2n_deploy.ComputeOptions", "trusted_keys", "n2n_deploy.HostError"):
        assert text in page


def test_pictures_have_a_text_in_their_place_and_nothing_comes_from_elsewhere(site: Path) -> None:
    for name, content in _pages(site).items():
        images = _Images()
        images.feed(content)
        assert all(images.alternatives), name
        assert not images.elsewhere, name


def test_the_gallery_s_figures_are_those_measured_with_its_pictures() -> None:
    folder = ROOT / "docs" / "images" / "gallery"
    examples = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))["examples"]
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for name, measured in examples.items():
        assert f"(images/gallery/{name}.jpg)" in page
        assert (folder / f"{name}.jpg").stat().st_size <= 150_000
        figures = [f"{measured[key]:.2f}" if key in measured else "–" for key in ("estimated", "true")]
        # Without a specimen there is no signal to recover a fraction of.
        row = "| no signal | – |" if name == "noise" else f"| {figures[0]} | {figures[1]} |"
        assert row in page, name


def test_the_readme_is_a_door() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 120
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("https://") or (ROOT / link).is_file(), link
