"""Waiting for a server has a limit and a line: for its answer, for bytes that drip, for the time that it asks for.

The hub's own client tries each request six times and waits as long as a server says. Here a hub that has not answered
once is given up after two attempts, and its cache alone is asked from then on.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers

from comat.errors import UserError


@dataclass(frozen=True)
class Limits:
    """How long a server is waited for."""

    connect: float = 10.0  # seconds until a connection stands
    read: float = 30.0  # seconds without a byte
    attempts: int = 2  # of a hub that has never answered
    busy: float = 300.0  # seconds that a server may ask for by Retry-After
    window: float = 60.0  # seconds, in each of which at least
    least: int = 60_000  # bytes must come


LIMITS = Limits()


class Pace:
    """Sees that the bytes of a body do not drip."""

    def __init__(self, what: str, limits: Limits = LIMITS) -> None:
        self.what, self.limits = what, limits
        self._begun, self._bytes = time.monotonic(), 0

    def tell(self, count: int) -> None:
        """Say that `count` bytes came.

        Raises:
            UserError: at the end of a window in which too few came.
        """
        self._bytes += count
        passed = time.monotonic() - self._begun
        if passed < self.limits.window:
            return
        if self._bytes < self.limits.least:
            raise UserError(
                f"{self.what}: only {self._bytes} bytes came in {passed:.0f} s; what has arrived is kept: try again "
                "later, or over another network"
            )
        self._begun, self._bytes = time.monotonic(), 0


class _Paced(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, pace: Pace) -> None:
        self._stream, self._pace = stream, pace

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._pace.tell(len(part))
            yield part

    def close(self) -> None:
        self._stream.close()


class _Hosts:
    """Which hosts have answered, and how often others have not."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.silent: Counter[str] = Counter()


class _Client(httpx2.Client):
    """The hub's client with limits; it shares with the clients before it what is known of hosts."""

    def __init__(self, limits: Limits, hosts: _Hosts, **options: Any) -> None:
        super().__init__(**options)
        self.limits, self.hosts = limits, hosts

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        host = request.url.netloc.decode()
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        most = {"connect": self.limits.connect, **dict.fromkeys(("read", "write", "pool"), self.limits.read)}
        request.extensions["timeout"] = {name: min(given.get(name) or limit, limit) for name, limit in most.items()}
        try:
            response = super().send(request, stream=True, **options)
        except (httpx2.ConnectError, httpx2.TimeoutException) as error:
            self._count(host, error)
            raise
        self.hosts.answered.add(host)
        _check_busy(host, response, self.limits.busy)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Paced(response.stream, Pace(f"{request.url}", self.limits))
        if not stream:
            try:
                response.read()
            finally:
                response.close()
        return response

    def _count(self, host: str, error: httpx2.TransportError) -> None:
        """Give up a hub that has never answered: from now on its client does what it does when it is offline."""
        self.hosts.silent[host] += 1
        known = host in self.hosts.answered or host != urlsplit(constants.ENDPOINT).netloc
        if known or self.hosts.silent[host] < self.limits.attempts:
            return
        if not constants.HF_HUB_OFFLINE:
            print(f"note: {host} does not answer; from now on its cache alone is asked", file=sys.stderr)
        constants.HF_HUB_OFFLINE = True
        raise OfflineModeIsEnabled(f"{host} does not answer ({type(error).__name__})") from error


def _check_busy(host: str, response: httpx2.Response, most: float) -> None:
    """Refuse to wait for very long.

    Raises:
        UserError: saying how long the server asks to be left alone.
    """
    limit, after = parse_ratelimit_headers(response.headers), response.headers.get("Retry-After", "")
    asked = max(limit.reset_in_seconds if limit else 0, int(after) if after.isdecimal() else 0)
    if response.status_code in (429, 503) and asked > most:
        response.close()
        raise UserError(f"{host} answers {response.status_code} and asks to wait {asked} s; run again after that time")


@functools.cache
def limit_waiting(limits: Limits = LIMITS) -> None:
    """Give the hub's client these limits, in this process; of hosts nothing is known then."""
    hooks, hosts = get_session().event_hooks, _Hosts()
    set_client_factory(lambda: _Client(limits, hosts, event_hooks=hooks, follow_redirects=True))
