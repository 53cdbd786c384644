"""`make upgrade`: pins are raised and never lowered, and pip reads the result."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "upgrade.py"


@pytest.fixture(scope="module")
def upgrade() -> ModuleType:
    """The script as a module."""
    specification = importlib.util.spec_from_file_location("upgrade", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_pins_are_raised_by_version_and_not_by_text(upgrade: ModuleType) -> None:
    lines, changes = upgrade.raised(["numpy==2.9.0", "ruff==0.17.6"], {"numpy": "2.10.0", "ruff": "0.17.10"})
    assert lines == ["numpy==2.10.0", "ruff==0.17.10"]
    assert len(changes) == 2


def test_no_pin_is_lowered_and_torch_stays(upgrade: ModuleType) -> None:
    pins = ["nvidia-cuda-nvrtc==13.5.37", "torch==2.13.0"]
    assert upgrade.raised(pins, {"nvidia-cuda-nvrtc": "13.0.1", "torch": "2.14.1"}) == (pins, [])


def test_names_are_compared_as_pip_does_and_keep_their_spelling(upgrade: ModuleType) -> None:
    lines, _ = upgrade.raised(
        ["Jinja2==3.1.6", "typing_extensions==4.16.0"], {"jinja2": "3.2", "typing-extensions": "5"}
    )
    assert lines == ["Jinja2==3.2", "typing_extensions==5"]


def test_what_became_needed_is_appended_but_for_torch_s_cuda(upgrade: ModuleType) -> None:
    found = {"attrs": "26.1", "n2n-deploy": "0.1", "nvidia-cublas": "13", "triton": "3"}
    lines, changes = upgrade.raised(["numpy==2.4.6"], found)
    assert lines == ["attrs==26.1", "numpy==2.4.6"]
    assert changes == ["attrs: new, 26.1"]


def test_the_constraints_are_exact_pins_in_the_script_s_order(upgrade: ModuleType) -> None:
    pins = upgrade.CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    assert upgrade.raised(pins, {}) == (pins, [])
    for pin in pins:
        (specifier,) = Requirement(pin).specifier
        assert specifier.operator == "==", pin
