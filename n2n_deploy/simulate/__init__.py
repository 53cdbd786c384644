"""Micrographs with known truth, simulated from an atomic model."""

from n2n_deploy.simulate.dataset import simulate

__all__ = ["simulate"]
