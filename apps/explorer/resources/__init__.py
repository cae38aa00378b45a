"""Resources of the pages: SAEs, language models, thumbnails, visualizations, steering runs."""
