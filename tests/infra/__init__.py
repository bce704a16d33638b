"""The command line and what it starts, as real processes."""
