"""What a person can mend: shown by ``cli`` as it is, one line or a few, never as a traceback."""


class CommandError(Exception):
    """Why a command cannot go on, and what to do; exit code 1."""
