"""Figures of *Toy Models of Superposition*."""
