"""The autoscaler against others, on a clock of its own: what a wait costs with each of them.

A discrete-event simulation of one request pool. The policies see what they would see in life, at
their own pace, and change the fleet; machines boot, serve, drain and are billed. Each policy is
played at several values of its main knob, which gives a frontier of cost over p95 wait, and costs
are compared at equal p95.

``traffic`` makes the loads from a real trace, ``day`` plays one, ``ours`` is the product's own
``scheduler.autoscale.decide``, ``peers`` are the others, ``frontier`` sweeps and compares,
``tables`` prints, ``plot`` draws.
"""

from bench.autoscale.tables import main

__all__ = ["main"]
