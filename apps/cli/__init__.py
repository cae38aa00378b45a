"""The command line: `circuits COMMAND`. Importing this package imports nothing else."""
