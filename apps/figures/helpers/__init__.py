"""What several figure scripts use."""
