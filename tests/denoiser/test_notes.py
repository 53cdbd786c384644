"""What the user is told about defects of a micrograph: notes, and a flag in the report."""

import numpy as np

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoised import notes
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.report.illumination import illumination_flags


def prepared(image: np.ndarray) -> Prepared:
    return preprocess(image.astype(np.float32), Optics(2.0, 300.0, 2.7, 0.1), None, Recipe(phase_flip=False))


def counts(expected: float | np.ndarray = 30.0) -> np.ndarray:
    return np.random.default_rng(0).poisson(expected, (600, 800)).astype(np.float32)


def test_defects_are_counted_in_the_notes() -> None:
    image = counts()
    assert notes(prepared(image)) == ()
    image[:, 100:103], image[50] = 0, 0
    image[:, -16:] = 0
    assert notes(prepared(image)) == (
        "1 dead row and 3 dead columns replaced by local means",
        "a constant margin of 16 px at the right: not denoised, the output keeps the input's values there",
    )


def test_a_beam_edge_is_a_note_and_a_flag_with_the_fraction_of_the_area() -> None:
    image = counts(np.where(np.arange(800) < 200, 2.0, 30.0))
    found = prepared(image)
    (note,) = notes(found)
    assert note.startswith("beam edge: 2")
    assert "% of the area" in note
    (flag,) = illumination_flags(found.pixels.illumination)
    assert (flag.kind, f"{flag.kind}: {flag.text}") == ("beam edge", note)
    assert illumination_flags(prepared(counts()).pixels.illumination) == ()
