"""Hosts and ports of this machine: which are free, and how one calls what listens there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from yarl import URL

from infra.errors import CommandError

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def check_free(host: str, port: int) -> None:
    """Make sure that one can listen there.

    Raises:
        CommandError: no such address here, or somebody else listens on it.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except socket.gaierror as error:
        raise CommandError(f"cannot listen on {host}: no such address (see --host)") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise CommandError(
            f"cannot listen on {host}:{port}: {reason} (choose another with --port)"
        ) from error


@contextmanager
def reserved(host: str, port: int) -> Iterator[None]:
    """Keep the port for processes that share it: nobody else's program gets it while none of them
    listens. Nothing arrives at a socket that is only bound.

    Raises:
        CommandError: like ``check_free``.
    """
    check_free(host, port)
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        holder.bind(address)
        yield


def callable_url(host: str, port: int) -> str:
    """How a process of this machine calls what listens on ``host``, also on "everywhere"."""
    name = _EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def asked_url(option: str, text: str) -> str:
    """The address of a service that ``option`` names, perhaps below a path, without a last slash.

    Raises:
        CommandError: it is none, or names somebody: keys have options of their own.
    """
    try:
        url = URL(text)
        is_http = url.scheme in ("http", "https") and bool(url.host)
        good = is_http and not (url.user or url.query_string or url.fragment)
    except ValueError:
        good = False
    if not good:
        raise CommandError(f"{option}: {text} is no http:// or https:// URL")
    return text.rstrip("/")
