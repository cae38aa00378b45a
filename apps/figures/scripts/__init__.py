"""The scripts, by paper. Each reads from top to bottom: load, compute by the library, plot, say what came out.

A module here is found by itself; a new figure is a function with `@figure(...)` (docs/figures.md).
"""
