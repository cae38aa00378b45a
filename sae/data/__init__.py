"""Activations that dictionaries are trained on: sites, streams, shards."""
