"""Which part of a thing a unit detects, on any network and any images with masks."""
