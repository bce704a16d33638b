"""``vestibule owui``: puts the filter Function and the gateway's connections into an Open WebUI.

Knows Open WebUI's admin API (0.12.4: ``routers/functions.py``, ``routers/openai.py``); not what the
Function does. What an administrator changed there stays: everything is read, completed and written
back, and doing it again changes nothing.

Read in this order: ``command`` the words · ``webui`` the admin API, ``signin`` who uses it ·
``target`` what to point it at · ``change`` one difference, shown and then made · ``function``,
``valves``, ``connections`` the three things that change · ``installing``, ``removing``,
``checking`` what the commands do with them · ``trial`` whether it works · ``surroundings``,
``variables`` what only the administrator can do.
"""
