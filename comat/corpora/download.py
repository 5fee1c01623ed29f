"""One file over HTTP: resumed where it broke off, tried again, and taken only if it is the file that was published."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from comat.errors import UserError
from comat.models.waiting import LIMITS, Limits, Pace
from comat.storage.tables import sha256

BLOCK = 4096  # bytes; what has arrived of a block is lost where a connection breaks off
REMEDY = "try again later, or put the files into a folder as docs/data.md says and set corpora.source to it"


@dataclass(frozen=True)
class Patience:
    """How long a download waits and how often it tries."""

    attempts: int = 5  # requests that may break off before a file is given up
    backoff: float = 1.0  # seconds before the second attempt; doubled before each further one
    connect: float = 10.0  # seconds until a connection stands
    stall: float = 30.0  # seconds without a byte
    busy: int = 60  # seconds, at most, that are waited for where a server names a time
    pace: Limits = LIMITS  # of the bytes of a body


@contextmanager
def session(patience: Patience) -> Iterator[requests.Session]:
    """A session that connects again, and asks a busy server again after the time that it names, within limits."""
    retry = Retry(
        total=patience.attempts - 1,
        connect=2,  # who is offline should hear it soon
        backoff_factor=patience.backoff,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        retry_after_max=patience.busy,
    )
    with requests.Session() as found:
        for scheme in ("http://", "https://"):
            found.mount(scheme, HTTPAdapter(max_retries=retry))
        yield found


def download(http: requests.Session, url: str, target: Path, size: int, digest: str, patience: Patience) -> None:
    """Fetch `url` to `target`, which appears only once it has `size` bytes and the sha256 `digest`.

    What has arrived stays beside it as `<name>.part` until then: the next attempt, or the next run, asks for the rest.

    Raises:
        UserError: if the server cannot be reached, does not have the file, has another one, or keeps breaking off.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.backoff * 2 ** (attempt - 1))
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _receive(http, url, part, size, patience)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            trouble = f"broke off after {part.stat().st_size if part.exists() else 0} of {size} bytes ({_cause(error)})"
            continue
        found = sha256(part)
        if found == digest:
            os.replace(part, target)
            return
        trouble = f"got {part.stat().st_size} bytes with sha256 {found}, expected {size} bytes with {digest}"
        part.unlink()
        if not resumed:  # a whole body that is another file will not become the right one
            break
    raise UserError(f"{url}: {trouble}; {REMEDY}")


def _receive(http: requests.Session, url: str, part: Path, size: int, patience: Patience) -> None:
    """Append to `part` what is missing of it; start over where the server does not resume.

    Raises:
        UserError: if there is no answer, or one that is no file.
        requests.RequestException, urllib3.exceptions.HTTPError: if the body breaks off or stalls.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    # Not compressed: a range of a compressed body is not a range of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _answer(http, url, headers, patience) as response:
        if response.status_code == 416 and have:  # more than the server has: not its file
            part.unlink()
            return _receive(http, url, part, size, patience)
        if response.status_code not in (200, 206):
            what = "no such file there" if response.status_code == 404 else "no file came"
            raise UserError(f"{url}: the server answers {response.status_code} {response.reason}: {what}; {REMEDY}")
        with part.open("ab" if response.status_code == 206 else "wb") as file:
            pace = Pace(url, patience.pace)
            # What there is: `iter_content` would wait for whole blocks, however slowly they fill.
            while block := response.raw.read1(BLOCK, decode_content=True):
                pace.tell(len(block))
                file.write(block)
                if file.tell() > size:
                    return


def _answer(http: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    try:
        return http.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.stall))
    except requests.RequestException as error:
        host = urlsplit(url).netloc
        raise UserError(f"cannot reach {host} for {url} ({_cause(error)}); if there is no network, {REMEDY}") from None


def _cause(error: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap it several times."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return _cause(reason) if isinstance(reason, BaseException) else f"{type(error).__name__}: {error}"
