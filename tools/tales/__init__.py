"""Training and evaluation of the embedded language model `tales`."""
