"""Images: where they come from, how they are decoded, their classes."""
