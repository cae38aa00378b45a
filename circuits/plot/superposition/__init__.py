"""Figures of toy models of superposition."""
