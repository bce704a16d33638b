"""Tickets, queue, drafts, sessions and the registry of workers; REST, events and the gateway.

                join               slot free                 confirm                over
     (none) ────────► waiting ───────────────► draft ───────────────► active ────────► disconnected
                        │  present and auto_confirm ─────────────────────▲
                        └─ leave · abandoned · queue timeout · draft over ────────────► disconnected

Reading order: ``domain`` the words · ``store/`` every Redis key, one Lua script per call, and one
method per script · ``outcomes`` what they answer · ``errors`` what callers get to see · ``wire``
JSON in, ``views`` JSON out · ``auth/`` who may call, ``rates`` how often · ``api/`` REST and
events · ``pages/`` what people read · ``operations`` and ``openapi`` the API, described ·
``gateway/`` ``/v1`` · ``directory`` the workers as one process saw them · ``news``, ``audience``
and ``listener`` who is attached to it · ``app`` puts it together · ``settings``.

The same operations as functions of AWS Lambda: ``asked`` what a handler may ask of a call,
``invocation`` a function's event as one · ``roster`` the registry without the gateway's part ·
``polling`` when to ask again without a stream · ``warm`` what lives between two invocations ·
``functions`` puts it together.

``client`` for frontends elsewhere, which knows of all this only ``domain`` and ``errors``:
``client_calls`` asks, ``client_events`` follows, ``client_turn`` holds a turn.

Imports nothing of ours: the scheduler, infra and the worker know admission, never the reverse.
"""
