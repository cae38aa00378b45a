"""Figures of units and of what is known of them."""
