"""The socket that the API listens on."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any free one. Raises OSError, as where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # What it accepts inherits this. An answer is written in two pieces, and the second would wait for the client's
    # acknowledgement of the first, which a client's system may hold back for 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """Under which it is reached. host: as it was asked to listen on."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
