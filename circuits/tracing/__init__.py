"""Circuits: tracing a unit back through the layers, and scoring what was traced."""
