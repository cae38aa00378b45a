"""Figures of *An Overview of Early Vision*."""
