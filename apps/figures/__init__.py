"""Figures of the papers, made again: one script each, on any model that has what the figure is about."""
