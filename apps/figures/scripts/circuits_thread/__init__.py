"""Figures of the Circuits thread."""
