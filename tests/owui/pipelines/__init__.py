"""The Open WebUI plugin against the real admission service, and its installer's decisions."""
