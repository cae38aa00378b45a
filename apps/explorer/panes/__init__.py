"""Parts of pages: each shows one kind of result."""
