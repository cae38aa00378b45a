"""Figures of *Activation Atlas*."""
