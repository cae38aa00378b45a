"""Activation space: atlases, semantic dictionaries, neuron groups, spatial attribution."""
