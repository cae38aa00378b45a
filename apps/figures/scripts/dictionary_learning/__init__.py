"""Figures of the papers on superposition and sparse autoencoders."""
