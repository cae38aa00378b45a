"""Figures and pages of audits."""
