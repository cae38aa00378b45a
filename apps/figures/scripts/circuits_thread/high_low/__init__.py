"""Figures of *High-Low Frequency Detectors*."""
