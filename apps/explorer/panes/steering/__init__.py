"""The parts of the steering page."""
