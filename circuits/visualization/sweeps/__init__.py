"""Visualizations of whole layers, kept in a folder."""
