"""Figures of *Feature Visualization*."""
