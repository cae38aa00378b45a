"""Weights: looked for, downloaded, converted, checked."""
