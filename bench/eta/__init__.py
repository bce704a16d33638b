"""How good the wait estimate is: the real engine beside simple predictors, on made and real loads.

``phases`` makes the loads, ``day`` plays one on the real engine, ``rivals`` are simpler
predictors, ``scores`` counts errors, ``tables`` prints them.
"""

from bench.eta.tables import main

__all__ = ["main"]
