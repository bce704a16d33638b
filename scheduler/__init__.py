"""The clockwork: bounded ticks that may run any number of times, in any number of processes.

``ticks`` what moves the queue · ``probe`` who may get requests · ``accounts``, ``samples`` and
``books`` what is brought into SQL · ``tick`` one duty and its bounds · ``table`` all of them ·
``leases`` who may run which · ``clockwork`` runs them with APScheduler, ``functions`` when a
schedule calls.
"""
