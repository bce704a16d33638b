"""The autoscaler's decisions: each rule by itself, and what must hold whatever happens."""
