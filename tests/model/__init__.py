"""The engine beside a plain model of the same rules."""
