"""Finished audits, and networks without their suspects."""
