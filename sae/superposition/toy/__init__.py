"""Toy models of superposition: training, sweeps, experiments."""
