"""What pages share: SAEs, language models, thumbnails, visualizations, steering runs."""
