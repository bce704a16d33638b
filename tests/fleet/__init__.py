"""The fleet: its store beside a plain model, its life cycle, its reconciler."""
