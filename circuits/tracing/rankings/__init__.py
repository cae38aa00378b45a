"""Units and edges in the order of how much they move a target."""
