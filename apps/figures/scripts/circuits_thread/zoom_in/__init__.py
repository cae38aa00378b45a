"""Figures of *Zoom In*."""
