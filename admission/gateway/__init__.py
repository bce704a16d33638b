"""The OpenAI-compatible data plane: enforces the turn and relays to a worker.

``routes`` the endpoints · ``turn`` holds a session's slot while a request runs · ``pick`` chooses
the worker · ``relay`` passes the bytes · ``ask`` asks a model for who is no OpenAI client.
"""
