"""Figures of *Towards Monosemanticity* and *Scaling Monosemanticity*."""
