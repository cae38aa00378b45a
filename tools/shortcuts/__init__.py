"""Training of the networks of `scenes-shortcuts`."""
