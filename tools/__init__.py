"""Making what the package carries: the embedded networks."""
