"""The OpenAI-compatible data plane: enforces the turn and relays to a worker.

In the order of a call: ``routes`` and ``ollama`` the endpoints · ``call`` what is asked
(``multipart`` finds the model of a form) · ``gate`` its way through · ``turn`` the right to run,
from what this process knows of sessions (``memory``) or by a ``lease`` of a request pool ·
``place`` waits for one · ``notice`` what the caller sees meanwhile · ``event_stream`` an answer
that may begin before the model's · ``tasks`` what never takes a turn · ``away`` what passes without
Redis.

Then: ``pick`` the worker, by the rules of ``routing`` and by who did not answer (``trouble``) ·
``upstream`` brings the call there, over a kept ``connection`` whose answers ``framing`` reads ·
``headers`` which pass · ``relay`` the bytes, and the account of them. Beside it: ``ask``
asks for who is no OpenAI client · ``stored`` finds what a worker kept, by its id · ``tally`` counts
who waits.
"""
