"""The one place that talks to Redis.

``names`` every key, its type and meaning · ``lua/`` one script per transition, ``lua/lib/`` what
they share · ``scripts`` loads them by their headers · ``redis_store`` one method per script ·
``news`` who must be told · ``connection`` opens and checks the server.
"""
