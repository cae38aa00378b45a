"""One file per command, or per tight family of commands."""
