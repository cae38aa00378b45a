"""Measurements for a single figure."""
