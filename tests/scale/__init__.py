"""What happens when servers and processes are several, and when they die."""
