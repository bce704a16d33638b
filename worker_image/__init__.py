"""What runs on a GPU machine: the agent, shipped alone, and the image that carries it with vLLM.

Knows one model server and HTTP; meets admission over HTTP only and imports nothing of ours.
`agent.py` is one file on purpose: it is copied to a machine, its hash is checked there, and it runs
with aiohttp alone. `Dockerfile` puts it beside vLLM, `entrypoint` runs the two together.
"""
