"""The OpenAI-compatible data plane: enforces the turn and relays to a worker.

``routes`` the endpoints · ``call`` what is asked · ``turn`` holds a session's slot, or a lease,
while a request runs · ``place`` waits for one · ``notice`` what the caller sees meanwhile ·
``tasks`` what never takes a turn · ``pick`` chooses the worker · ``relay`` passes the bytes ·
``event_stream`` an answer that may begin before them · ``tally`` counts who waits · ``ask`` asks
for who is no OpenAI client.
"""
