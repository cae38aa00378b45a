"""The layers of a network, and what the axes of their activations are."""
