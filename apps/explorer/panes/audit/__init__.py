"""A finished audit: its suspects, and the network without them."""
