"""Figures of the articles on feature visualization and activation space."""
