"""Figures of *Curve Circuits*."""
