"""The REST routes, one module per noun: tickets, events, pools, workers, health.

Handlers read the request, call one store method, match its outcome and render it; the rules are in
the Lua.
"""
