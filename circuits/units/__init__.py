"""Units compared with each other: similarity, families, polysemanticity, universality."""
