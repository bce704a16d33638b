"""The clockwork: bounded ticks that may run any number of times, in any number of processes.

``ticks`` one function per duty · ``probe`` asks static upstreams whether they live · ``clockwork``
runs the ticks with APScheduler.
"""
