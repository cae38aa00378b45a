"""Other ways to visualize: caricatures, accentuation, spectra, aligned starts."""
