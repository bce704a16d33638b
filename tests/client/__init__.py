"""The client for other frontends against the real service, and what lies between them broken."""
