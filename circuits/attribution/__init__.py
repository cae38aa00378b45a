"""Weights between layers, and what each unit contributes to another on images."""
