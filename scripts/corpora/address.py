"""Where files lie, by http or in a folder, and what such an address gives when it is asked."""

import io
import os
import re
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, Optional, Union
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from fairseq_admin.errors import UserError

TIMEOUT = 60.0  # seconds without a byte, after which a connection counts as broken
AGAIN = (408, 416, 429)  # statuses below 500 that another try may mend
# No user and password: they would stand in every message.
HOST = re.compile(r"([a-z\d_.-]+|\[[\da-f:.]+\])(:\d+)?", re.IGNORECASE | re.ASCII)

Address = Union[str, Path]  # of http and https; of a file


@dataclass(frozen=True)
class Reply:
    """What an address gives: the bytes from *start* on of *total*, None where it does not say."""

    stream: IO[bytes]
    start: int
    total: Optional[int]
    validator: str  # a strong ETag or else a date, by which a changed file shows; "" for neither
    has_end: bool = True  # a stream that breaks off can be told from one that ends


def parse(given: str) -> Address:
    """An http or https url as it is, a file:// url and a plain path as a path.

    Raises:
        UserError: for any other scheme, and what no request can be made of.
    """
    scheme, is_url, rest = given.partition("://")
    if not is_url:
        return Path(given).absolute()
    host, _, path = rest.partition("/")
    if scheme.lower() == "file" and host in ("", "localhost"):
        return Path("/" + unquote(path))
    is_http = scheme.lower() in ("http", "https")
    if is_http and HOST.fullmatch(host) and re.fullmatch("[!-~]*", path):
        return given
    raise UserError(f"{given}: neither http(s)://HOST/..., nor file:///..., nor a path")


def ask(address: Address, start: int = 0, validator: str = "") -> Reply:
    """What *address* gives from byte *start* on, if the file there is still that of *validator*,
    else from its beginning.

    Raises:
        UserError: where asking again is of no use.
        OSError, HTTPException: where it may be.
    """
    if isinstance(address, Path):
        return _read(address, start, validator)
    headers = {"User-Agent": "fairseq_admin"}  # some hosts refuse urllib's own
    if start:
        headers.update({"Range": f"bytes={start}-", "If-Range": validator})
    try:
        request = Request(address, headers=headers)
        response = build_opener(_HttpOnly).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                return Reply(io.BytesIO(), start, start, validator)  # all of it is there
            return ask(address)
        if error.code < 500 and error.code not in AGAIN:
            reason = " ".join(str(error.reason).split())
            raise UserError(f"{address}: HTTP status {error.code} {reason}") from error
        raise
    except ValueError as error:  # of a redirect or a proxy that is no address
        raise UserError(f"{address}: {error}") from error
    try:
        return _reply(address, response, start, validator) or ask(address)
    except BaseException:
        response.close()
        raise


def _reply(address: str, response: HTTPResponse, start: int, validator: str) -> Optional[Reply]:
    """*response* as a reply; None if it goes on within a file that is another by now."""
    found = _validator(response)
    total = response.length  # None in chunks, which have an end, and without any length
    has_end = response.chunked or total is not None
    if response.status == 200:
        return Reply(response, 0, total, found, has_end)
    if response.status != 206:
        raise UserError(f"{address}: HTTP status {response.status}, expected 200")
    given = response.headers.get("Content-Range", "no range")
    parsed = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given.strip(), re.ASCII)
    if not parsed or int(parsed[1]) != start:
        raise UserError(f"{address}: gave {given} where bytes from {start} on were asked")
    if start and found not in ("", validator):  # a date may be left out of such a reply
        response.close()
        return None
    if parsed[2] != "*":
        return Reply(response, start, int(parsed[2]), found)
    return Reply(response, start, None if total is None else start + total, found, has_end)


def _validator(response: HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    found = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    return found if re.fullmatch("[ -~]*", found) else ""


def _read(path: Path, start: int, validator: str) -> Reply:
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        stream = open(path, "rb")  # noqa: SIM115  closed by who asked
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    state = os.fstat(stream.fileno())
    found = f"{state.st_mtime_ns} {state.st_size}"
    start = start if found == validator else 0
    stream.seek(start)
    return Reply(stream, start, state.st_size, found)


class _HttpOnly(HTTPRedirectHandler):
    """Follows redirects to http and https, and no others: to files or to ftp."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, f"{msg}, to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
