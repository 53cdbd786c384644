"""The recipes that a network takes, and the one that is chosen."""

import pytest
from pydantic import ValidationError

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.recipe import Recipe, RecipeRange, choose_recipe

DEFAULT = Recipe(max_resolution=8.0, highpass=150.0, phase_flip=True, patch_size=96)
EITHER = RecipeRange(max_resolution=(4.0, 12.0), either_phase=True)


def test_without_a_wish_the_models_own_recipe_is_followed() -> None:
    assert choose_recipe(DEFAULT, None, "m.n2n") == choose_recipe(DEFAULT, EITHER, "m.n2n") == DEFAULT


@pytest.mark.parametrize("resolution", [4.0, 5.5, 12.0])
@pytest.mark.parametrize("flip", [True, False])
def test_a_range_takes_what_is_asked_and_keeps_the_rest(resolution: float, flip: bool) -> None:
    found = choose_recipe(DEFAULT, EITHER, "m.n2n", max_resolution=resolution, phase_flip=flip)
    assert found == Recipe(max_resolution=resolution, highpass=150.0, phase_flip=flip, patch_size=96)


@pytest.mark.parametrize(
    ("accepts", "wish", "words"),
    [
        (EITHER, {"max_resolution": 3.9}, "m.n2n: was trained for 4 to 12 Å, not for a max_resolution of 3.9 Å"),
        (EITHER, {"max_resolution": 13.0}, "m.n2n: was trained for 4 to 12 Å, not for a max_resolution of 13 Å"),
        (None, {"max_resolution": 6.0}, "m.n2n: was trained for 8 Å alone, not for a max_resolution of 6 Å"),
        (None, {"phase_flip": False}, "m.n2n: was trained on flipped phases alone"),
        (RecipeRange(max_resolution=(4.0, 12.0)), {"phase_flip": False}, "m.n2n: was trained on flipped phases alone"),
    ],
)
def test_what_the_network_was_not_trained_for_is_refused(
    accepts: RecipeRange | None, wish: dict[str, float], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        choose_recipe(DEFAULT, accepts, "m.n2n", **wish)  # type: ignore[arg-type]


def test_the_only_resolution_of_a_model_may_be_named() -> None:
    assert choose_recipe(DEFAULT, None, "m.n2n", max_resolution=8.0, phase_flip=True) == DEFAULT


@pytest.mark.parametrize("ends", [(12.0, 4.0), (0.0, 8.0), (4.0, 60.0)])
def test_a_range_that_makes_no_sense_is_invalid(ends: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        RecipeRange(max_resolution=ends)
