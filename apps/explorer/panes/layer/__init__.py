"""The parts of pages about whole layers."""
