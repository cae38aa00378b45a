"""Figures of *The Building Blocks of Interpretability*."""
