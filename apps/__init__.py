"""The programs that people run: they read inputs, call the library, and show what it returns."""
