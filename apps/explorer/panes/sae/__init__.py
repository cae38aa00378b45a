"""Sparse autoencoders: their latents, and the training of the built-in one."""
