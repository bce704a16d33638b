"""Where machines come from: each module is one kind of provider, behind ``scheduler.fleet.port``.

A kind has ``Settings`` (a table of the fleet file) and ``open`` (which makes the provider).
"""
