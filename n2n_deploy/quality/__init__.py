"""What users need to trust a denoiser: estimates from halves, angles, FSC, the report."""
