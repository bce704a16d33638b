"""Tickets, queue, drafts, sessions and the registry of workers; REST, events and the gateway.

                join               slot free                 confirm                over
     (none) ────────► waiting ───────────────► draft ───────────────► active ────────► disconnected
                        │  present and auto_confirm ─────────────────────▲
                        └─ leave · abandoned · queue timeout · draft over ────────────► disconnected

Reading order: ``domain`` the words · ``store/`` every Redis key, one Lua script per arrow above,
and one method per script · ``outcomes`` what they answer · ``errors`` what callers get to see ·
``wire`` JSON in and out · ``auth`` who may call · ``api/`` REST and events · ``gateway/`` ``/v1`` ·
``directory`` and ``news`` what one process remembers · ``app`` puts it together · ``settings``.

Imports nothing of ours: the scheduler, infra and the worker know admission, never the reverse.
"""
