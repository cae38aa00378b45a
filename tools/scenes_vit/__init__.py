"""Training of the embedded vision transformer `scenes-vit`."""
