"""Composes the rest and meets the outside: the ``vestibule`` command line.

``cli`` the commands · ``up`` everything on this machine (``state`` its folder, ``embedded`` its
Valkey, ``children`` its processes, ``service`` the HTTP server, ``demo_model`` what answers when no
model is named, ``reload``) · ``worker`` vLLM with its agent · ``scheduler`` the clockwork alone ·
``owui`` installs the plugin · ``environment``, ``addresses``, ``stopping``, ``errors`` what the
commands have in common.
"""
