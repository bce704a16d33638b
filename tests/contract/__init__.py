"""One HTTP contract on every transport and every kind of Redis: the rules of ``infra.doctor``."""
