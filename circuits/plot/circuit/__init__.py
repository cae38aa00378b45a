"""Figures and the report of a circuit."""
