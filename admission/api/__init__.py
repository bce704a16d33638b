"""The HTTP routes, one module per noun.

``tickets`` a user's turn · ``events`` and ``ws`` its changes (``streams`` is what they share) ·
``pools`` · ``workers`` · ``keys`` · ``chat`` and ``threads`` for other frontends · ``pages`` and
``docs`` for people · ``health``. ``access`` and ``joins`` are what handlers ask first.
In a function ``elsewhere`` and ``late`` stand for what it has not, or only when asked for.

Handlers read the request, call one store method, match its outcome and render it; the rules are in
the Lua.
"""
