"""The worker agent, the demo model and `vestibule worker`, through real sockets and processes."""
