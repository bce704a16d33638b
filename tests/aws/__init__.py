"""Vestibule in AWS: its package, and what is deployed."""
