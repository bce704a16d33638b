"""``vestibule load-test``: people who use a queue, and what becomes of it.

A ``crowd`` says who comes when and what they are like; a ``person`` lives that out through
``admission.client`` and the gateway (``chat``) and leaves a ``visit`` behind; ``watch`` looks from
the outside whether what must hold does; ``rehearsal`` brings them together, ``table`` shows it
while it runs, ``report`` and ``plot`` when it is over. Only ``command`` knows words and settings.
Black box: nothing here knows more of the service than its HTTP.
"""
