"""Repairs: a network without some of its units, what that changes on held-out images, and the network written out."""
