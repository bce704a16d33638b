"""What Vestibule puts into Open WebUI: one self-contained filter Function, tried on 0.12.4.

Knows nothing of the rest of the project but the admission service's HTTP; its file is stored and
executed inside Open WebUI, so it imports only what Open WebUI itself ships.
"""
