"""Training of the planted networks."""
