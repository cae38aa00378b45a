"""A network as it is analyzed: its model, graph, layers and addresses; capturing and editing activations."""
