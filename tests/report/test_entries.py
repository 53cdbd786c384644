"""Entries of the report: made from records, and restored from JSON."""

import json
from pathlib import Path

import numpy as np
from simulated_images import OPTICS, SPACING, image_with_thon_rings

from n2n_deploy.imaging.ctf import CTFParameters
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entries import Curves, Flag, MicrographEntry
from n2n_deploy.report.views import view


def test_entry_survives_json():
    noisy, signal = image_with_thon_rings((128, 128))
    views = view(noisy, signal, SPACING, OPTICS, CTFParameters(12000, 11000), 20_000)
    curve = Curves(np.array([0.1, 0.2]), np.array([1.0, np.nan]), np.array([2.0, np.inf]))
    entry = MicrographEntry(
        "a.mrc", "denoised", seconds=1.5, snr=(0.1, 2.0), flags=(Flag("x", "y"),), notes=("n",), views=views, ssnr=curve
    )
    again = MicrographEntry.from_json(json.loads(json.dumps(entry.as_json(), allow_nan=False)))
    assert again.views.pictures == views.pictures
    assert (again.name, again.snr, again.flags, again.notes) == (entry.name, entry.snr, entry.flags, entry.notes)
    np.testing.assert_allclose(again.views.spectra.noisy, views.spectra.noisy, rtol=1e-3)
    np.testing.assert_allclose(again.views.spectra.zeros, views.spectra.zeros, rtol=1e-3)
    assert np.isnan(again.ssnr.noisy[1])


def test_entry_of_a_record_has_its_pixel_size_and_defocus():
    views = view(*image_with_thon_rings((128, 128)), SPACING, OPTICS, None, 20_000)
    record = Micrograph("mics/a.mrc", Path("mics/a.mrc"), OPTICS, CTFParameters(12000.0, 11000.0))
    given = Flag("seen by the caller", "text")
    entry = MicrographEntry.of(record, "denoised", seconds=2.0, flags=(given,), notes=("note",), views=views)
    assert (entry.name, entry.pixel_size, entry.defocus) == ("mics/a.mrc", 0.66, 1.15)
    assert entry.flags == (given, *views.flags)
    assert MicrographEntry.of(Micrograph("b.mrc", Path("b.mrc"), OPTICS), "failed", "why").defocus is None
