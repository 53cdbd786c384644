"""Micrographs with known truth, simulated from atomic models."""

from n2n_deploy.data.structures import NAMES, structure, structures
from n2n_deploy.simulate.dataset import simulate
from n2n_deploy.simulate.micrograph import SimulatedMicrograph, draw_micrograph

__all__ = ["NAMES", "SimulatedMicrograph", "draw_micrograph", "simulate", "structure", "structures"]
