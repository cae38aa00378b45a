"""Runs of a network in which some units have their activations and all others the values of a baseline."""
