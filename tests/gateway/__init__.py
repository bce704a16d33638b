"""The gateway between real callers and real upstream servers."""
