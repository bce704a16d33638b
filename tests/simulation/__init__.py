"""Days of traffic on the real engine, in seconds and from a seed."""
