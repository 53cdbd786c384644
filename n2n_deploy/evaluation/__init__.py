"""How good a denoiser is on micrographs, from even and odd halves or from full exposures (S3)."""
