"""Networks by family: how they are built, and how their files are read."""
