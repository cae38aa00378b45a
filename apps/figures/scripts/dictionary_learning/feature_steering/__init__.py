"""Figures of *Evaluating Feature Steering*."""
