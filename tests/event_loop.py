"""The event loop of the tests: the service's own, which closes also when something is left open."""

import warnings

import uvloop


class Loop(uvloop.Loop):
    """uvloop warns of each transport and server that is open when the loop closes. Where warnings
    are errors it leaves that one open, and then waits for it for good, in a place where no signal
    is heard (0.23, ``__uv_walk_close_all_handles_cb``)."""

    def close(self) -> None:
        """Warnings of what was left open come when all is closed."""
        with warnings.catch_warnings(record=True) as left_open:
            warnings.simplefilter("always")
            super().close()
        for warning in left_open:
            warnings.warn(warning.message, stacklevel=2)
