"""Numbers from arrays, without judgement: estimates from halves, spectra, noise, intervals."""
