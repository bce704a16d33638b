"""The fleet: machines that providers bill, from the wish for one until it is proven gone.

How it works, in the order in which to read:

- ``table``       - the life cycle. ``transitions``: every arrow of it is a named, pure function
  with a guard, and makes the next version of an `admission.instance.Instance` and the line of its
  history.
- ``codes``, ``limits`` - why a machine failed and what to do; how long each phase may take.
- ``port``        - what a provider must do. Adapters live in ``infra/providers``.
- ``judge``       - pure: what is to be done next for one instance (``steps``), from what was last
  seen of it.
- ``reconcile``   - the tick: look, judge, write the intent, act, write what came of it. A crash
  between any two of these steps is healed by the next tick, of whichever scheduler: a launch
  carries the instance's id as its idempotency token, and ends are verified, never assumed. How
  a provider is asked, and how often, is ``patience``.
- ``commands``    - what admins and the autoscaler want, each taken exactly once.
- ``orphans``     - machines and volumes that only the provider knows.
- ``duties``      - all of it as ticks, for the clockwork.

Truth is in Redis (``admission.store.fleet_store``): every change is one script that compares the
version which was read and the fencing epoch of the tick's lease, and appends the history.
"""
