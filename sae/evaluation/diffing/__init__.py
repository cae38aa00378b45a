"""Model diffing: which latents of a crosscoder two networks share, and which only one of them has."""
