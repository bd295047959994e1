"""One call of a webhook: a JSON POST to a checked address, with limits on how long it may take. No redirects."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore

from orchestrator.notify.addresses import Allowed, Refused, resolve

TIMEOUT_S = 10.0
"""For the whole call, from looking up the name to the answer's status."""

SOCKET_OPTION = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class Failed(Exception):
    """It did not arrive; it may be tried again."""


class Webhook:
    """Calls webhooks. Safe to share by threads."""

    def __init__(self, allowed: Allowed, timeout_s: float = TIMEOUT_S) -> None:
        self._allowed, self._timeout_s = allowed, timeout_s
        self._tls = ssl.create_default_context()

    def call(self, url: str, payload: Mapping[str, Any]) -> None:
        """POST `payload`. Raises Failed; Refused where it may never go."""
        backend = _Checked(self._allowed, time.monotonic() + self._timeout_s)
        try:
            with httpcore.ConnectionPool(network_backend=backend, ssl_context=self._tls) as pool:
                headers = [("Content-Type", "application/json"), ("User-Agent", "orch"), ("Connection", "close")]
                content = json.dumps(payload).encode()
                with pool.stream("POST", url, headers=headers, content=content) as answer:
                    status = answer.status
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from error
        except (httpcore.UnsupportedProtocol, ValueError) as error:
            raise Refused(f"not a web address: {error}") from error
        if not 200 <= status < 300:
            raise Failed(f"it answered {status}")


class _Checked(httpcore.NetworkBackend):
    """Connects to the address that was checked: the name is not looked up a second time. All within a deadline."""

    def __init__(self, allowed: Allowed, deadline: float) -> None:
        self._allowed, self._deadline = allowed, deadline
        self._sync = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        address = resolve(host, port, self._allowed)
        return _Timed(self._sync.connect_tcp(address, port, _left(self._deadline)), self._deadline)


class _Timed(httpcore.NetworkStream):
    """A stream of which every step ends by the deadline: many short ones must not add up to a long call."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Timed(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("it took too long")
    return left
