"""Parts of pages: each shows one thing that is known of a unit."""
