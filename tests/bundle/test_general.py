"""The general model by its name, and the range of recipes that a bundle states."""

from pathlib import Path

import pytest
from bundle_builder import general_stand_in, one_layer_bundle

from n2n_deploy import data
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.core.recipe import RecipeRange

LARGEST = 10 * 2**20


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle in the place of the general model."""
    path = general_stand_in(tmp_path / "stand-in.n2n")
    monkeypatch.setattr(data, "GENERAL_MODEL", path)
    return path


def test_the_name_opens_the_packages_bundle(stand_in: Path) -> None:
    assert Bundle.open("general").path == Bundle.open(Path("general")).path == stand_in


def test_without_the_file_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "GENERAL_MODEL", tmp_path / "general.n2n")
    with pytest.raises(HostError, match=r"this installation has no general model .*; name one with --model"):
        Bundle.open("general")


@pytest.mark.skipif(not data.GENERAL_MODEL.is_file(), reason="the general model is not in this checkout")
def test_the_packages_own_bundle_is_whole_and_small() -> None:
    assert data.GENERAL_MODEL.stat().st_size <= LARGEST
    bundle = Bundle.open("general")
    bundle.verify_members()
    assert bundle.accepts == RecipeRange(max_resolution=(4.0, 12.0), either_phase=True)
    assert bundle.recipe.max_resolution == 8.0


@pytest.mark.usefixtures("stand_in")
def test_a_range_survives_writing_and_extending() -> None:
    bundle = Bundle.open("general")
    chosen = bundle.with_recipe(5.0, phase_flip=False)
    extend_bundle(chosen, {"extra": b"1"})  # the choice of one run is not written to the file
    again = Bundle.open("general")
    assert (again.recipe, again.accepts) == (bundle.recipe, bundle.accepts)
    assert again.short_hash == chosen.short_hash == bundle.short_hash
    assert (chosen.recipe.max_resolution, chosen.recipe.phase_flip) == (5.0, False)


@pytest.mark.usefixtures("stand_in")
def test_a_recipe_is_chosen_once() -> None:
    chosen = Bundle.open("general").with_recipe(5.0)
    assert chosen.with_recipe() == chosen
    with pytest.raises(UsageError, match="5 Å alone"):
        chosen.with_recipe(6.0)


def test_a_bundle_without_a_range_takes_its_own_recipe_alone(tmp_path: Path) -> None:
    bundle = Bundle.open(one_layer_bundle(tmp_path / "m.n2n"))
    assert bundle.accepts is None
    with pytest.raises(UsageError, match="8 Å alone"):
        bundle.with_recipe(6.0)
