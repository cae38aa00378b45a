"""Figures of *Curve Detectors*."""
