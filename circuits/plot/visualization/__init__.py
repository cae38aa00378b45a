"""Figures of visualizations."""
