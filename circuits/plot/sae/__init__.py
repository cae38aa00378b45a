"""Figures of sparse autoencoders and steering."""
