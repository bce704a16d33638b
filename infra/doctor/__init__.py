"""``vestibule doctor``: does a deployment keep the HTTP contract (DESIGN section 5)?

Black box: it knows a URL and two keys and speaks HTTP. But for ``command``, the command line, and
``admission.client``, which is itself a stranger to the service, it imports nothing of what it
examines. A rule is a sentence of the contract and the calls that show
whether it holds (``rule``, ``rules/``); it gets a pool and users of its own (``room``) in a
``deployment``; ``examination`` asks for all of them, ``report`` tells. The tests ask for the same
rules on every transport and kind of Redis (``tests/contract``).
"""
