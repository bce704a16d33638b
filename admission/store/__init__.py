"""The one place that talks to Redis.

``names`` every key, its type and meaning · ``lua/`` one script per call, ``lua/lib/`` one file for
each arrow of a ticket's life and what they share · ``scripts`` loads them by their headers ·
``calls`` brings them to Redis, ``lanes`` many at a time · ``redis_store`` one method per script ·
``news`` who must be told · ``thread_store`` conversations · ``key_store`` who may call ·
``rate_store`` how often · ``connection`` opens and checks the server.
"""
