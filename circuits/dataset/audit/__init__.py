"""Audits: which units a classifier leans on away from the object, and what happens without them."""
