"""How good a denoiser is on micrographs with even and odd halves (S3)."""
