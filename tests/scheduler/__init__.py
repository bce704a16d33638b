"""The clockwork and its ticks over the real store."""
