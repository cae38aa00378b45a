"""Metrics of a dictionary, and the baselines beside them."""
