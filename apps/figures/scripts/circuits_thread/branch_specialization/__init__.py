"""Figures of *Branch Specialization*."""
