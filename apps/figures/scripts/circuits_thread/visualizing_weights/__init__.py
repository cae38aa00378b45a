"""Figures of *Visualizing Weights*."""
