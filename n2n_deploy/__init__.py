"""Noise2noise denoising of cryo-EM micrographs, deployed: Palovcak et al. 2021, and well beyond it."""

from importlib.metadata import version

__version__ = version("n2n-deploy")
