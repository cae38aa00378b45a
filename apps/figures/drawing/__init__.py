"""Drawings that one figure needs and nobody else."""
