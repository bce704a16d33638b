"""What Vestibule costs, always beside a bare baseline of the same run. ``python -m bench``."""
