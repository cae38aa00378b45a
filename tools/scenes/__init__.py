"""Training and evaluation of the embedded network `scenes`."""
