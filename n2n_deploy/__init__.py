"""Noise2noise denoising of cryo-EM micrographs, deployed: the method of Palovcak et al. 2020 (IUCrJ 7, 1142), and more.

`denoise` takes a table of micrographs, `Denoiser` one micrograph as an array; `show` draws what they did.
`read_micrographs` gives a table as pandas DataFrames.
"""

from n2n_deploy.batch.denoise import denoise
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import BundleError, DataError, HostError, N2NError, UsageError
from n2n_deploy.core.options import ComputeOptions, NamingOptions, OpticsOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.core.version import __version__
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.restore import Merge
from n2n_deploy.interop.notebook import show
from n2n_deploy.io.micrograph_frames import read_micrographs

__all__ = [
    "Bundle",
    "BundleError",
    "CTFParameters",
    "ComputeOptions",
    "DataError",
    "DenoiseOptions",
    "Denoiser",
    "HostError",
    "Merge",
    "N2NError",
    "NamingOptions",
    "Optics",
    "OpticsOptions",
    "Recipe",
    "UsageError",
    "__version__",
    "denoise",
    "read_micrographs",
    "show",
]
