"""The architectures of sparse autoencoders, one a file, and what they share."""
