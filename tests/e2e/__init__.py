"""Knows the whole path: a real browser, Open WebUI, Vestibule and vLLM. Not part of `make test`."""
