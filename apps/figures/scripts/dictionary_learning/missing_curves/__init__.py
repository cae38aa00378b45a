"""Figures of *The Missing Curve Detectors of InceptionV1*."""
