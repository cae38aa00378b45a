"""Figures of activation space."""
