"""corpora.fetch against a real server: the right bytes under the name, or one line."""

import hashlib
import multiprocessing
import os
import re
import signal
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from corpora import address, parallel
from corpora import fetch as fetching
from corpora.fetch import Source, fetch
from fairseq_admin.errors import UserError
from tests.helpers import limited, wait_for

BODY = bytes(range(256)) * 4000  # about 1 MB
OTHER = BODY[::-1]
FORK = multiprocessing.get_context("fork")  # a fresh process takes seconds to import fairseq
NAME = "corpus.tgz"


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` at every path; `faults` are for the first requests, one each."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.faults, self.requests = BODY, '"one"', [], []
        self.url = f"http://127.0.0.1:{self.server_port}/data/{NAME}"


class Handler(BaseHTTPRequestHandler):
    """Ranges as RFC 9110 has them, but for a fault:

    status: answer with it; ignore_range: answer 200; deaf: ignore If-Range; close: send so many
    bytes of the body and close; shift: begin so many bytes late; wait: seconds after each 64 kB;
    unnamed: neither ETag nor date; endless: no length; headers: more of them.
    """

    def do_GET(self):
        site = self.server
        fault = site.faults.pop(0) if site.faults else {}
        site.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        current = fault.get("deaf") or self.headers.get("If-Range") == site.etag
        ranged = asked and current and not fault.get("ignore_range")
        start = int(asked[1]) if ranged else 0
        status, total = fault.get("status"), len(site.body)
        if status or start >= total:
            self.send_response(status or 416)
            if not status:
                self.send_header("Content-Range", f"bytes */{total}")
            body = b"no"
        else:
            self.send_response(206 if ranged else 200)
            start += fault.get("shift", 0) if ranged else 0
            if ranged:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if not fault.get("unnamed"):
                self.send_header("ETag", site.etag)
            body = site.body[start:]
        if not fault.get("endless"):
            self.send_header("Content-Length", str(len(body)))
        for header in fault.get("headers", {}).items():
            self.send_header(*header)
        self.end_headers()
        body = body[: fault.get("close", len(body))]
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at : at + (1 << 16)])
            time.sleep(fault.get("wait", 0))
        if "close" in fault:
            self.close_connection = True

    def log_message(self, *args):
        pass

    def handle(self):
        with suppress(ConnectionError):  # the client was killed
            super().handle()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.001)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        site.shutdown()


def source(server, body=BODY, **more):
    return Source(server.url, **{"sha256": sha(body), "size": len(body), **more})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def refused(*args, **kwargs):
    """The one line of a fetch that must fail."""
    with pytest.raises(UserError) as error:
        fetch(*args, **kwargs)
    assert "\n" not in error.value.message
    return error.value.message


def ranges(server):
    return [asked for _, asked, _ in server.requests]


def in_child(function, *args):
    """A process of *function*, which sends its result or the line of its error."""
    receive, send = FORK.Pipe(False)

    def run():
        try:
            send.send(function(*args))
        except UserError as error:
            send.send(error.message)

    process = FORK.Process(target=run)
    process.start()
    send.close()
    process.receive = receive
    return process


def test_fetched_once_verified_at_every_call(server, tmp_path, capsys):
    path = fetch(source(server), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / NAME and path.read_bytes() == BODY
    assert names(path.parent) == [NAME, f"{NAME}.lock"]
    (path.parent / f"{NAME}.partial.from").write_text("killed at the very end")
    assert fetch(source(server), path.parent) == path
    assert names(path.parent) == [NAME, f"{NAME}.lock"]
    assert ranges(server) == [None]
    assert capsys.readouterr().err == ""  # quiet when there is nothing to wait for
    path.write_bytes(OTHER)  # same length
    assert "remove it to fetch it again" in refused(source(server), path.parent)
    path.write_bytes(BODY[:-1])
    assert f"has {len(BODY) - 1} bytes" in refused(source(server), path.parent)
    assert len(server.requests) == 1 and path.read_bytes() == BODY[:-1]


def test_broken_connections_are_resumed(server, tmp_path, capsys):
    server.faults = [{"close": 300_000}, {"close": 400_000}]
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-", "bytes=700000-"]
    assert [condition for _, _, condition in server.requests] == [None, '"one"', '"one"']
    assert "broke off at byte 300000 of 1024000" in capsys.readouterr().err


def test_tries_count_only_without_progress(server, tmp_path):
    """More breaks than tries, each some bytes on; then breaks at one place."""
    server.faults = [{"close": 10_000}] * 3 * fetching.TRIES
    assert fetch(source(server), tmp_path / "a").read_bytes() == BODY
    server.requests.clear()
    server.faults = [{"close": 10_000}] + [{"close": 0}] * 50
    assert "10000 bytes are there: run this again" in refused(source(server), tmp_path / "b")
    assert len(server.requests) == 1 + fetching.TRIES
    assert not (tmp_path / "b" / NAME).exists()
    server.faults = []
    assert fetch(source(server), tmp_path / "b").read_bytes() == BODY
    assert ranges(server)[-1] == "bytes=10000-"


def test_server_without_ranges_starts_anew(server, tmp_path):
    server.faults = [{"close": 300_000}, {"ignore_range": True}]
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-"]
    server.faults = [{"close": 300_000, "ignore_range": True}] * 50  # no end of it
    assert "tries in a row" in refused(source(server), tmp_path / "b")
    assert len(server.faults) == 50 - 1 - fetching.TRIES


@pytest.mark.parametrize("deaf", [False, True], ids=["If-Range", "ignores If-Range"])
def test_file_changed_on_the_server_starts_anew(server, tmp_path, deaf):
    server.faults = [{"close": 300_000}] + [{"close": 0}] * fetching.TRIES
    refused(source(server), tmp_path)
    server.body, server.etag, server.faults = OTHER, '"two"', [{"deaf": deaf}]
    assert fetch(source(server, OTHER), tmp_path).read_bytes() == OTHER


def test_without_a_validator_nothing_is_resumed(server, tmp_path):
    server.faults = [{"close": 300_000, "unnamed": True}, {"unnamed": True}]
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, None]


def test_complete_partial_file(server, tmp_path):
    """All bytes are there but the name: killed just before the end."""
    partial = tmp_path / f"{NAME}.partial"
    partial.write_bytes(BODY)
    origin = tmp_path / f"{NAME}.partial.from"
    origin.write_text(f'{server.url}\n"one"\n')
    assert fetch(Source(server.url), tmp_path).read_bytes() == BODY
    assert ranges(server) == [f"bytes={len(BODY)}-"]  # answered by 416
    assert names(tmp_path) == [NAME, f"{NAME}.lock", f"{NAME}.sha256"]
    partial.write_bytes(BODY + b"more")
    origin.write_text(f'{server.url}\n"one"\n')
    (tmp_path / NAME).unlink()
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server)[1:] == [f"bytes={len(BODY) + 4}-", None]


def test_wrong_start_is_refused(server, tmp_path):
    server.faults = [{"close": 300_000}, {"shift": 7}]
    message = refused(source(server), tmp_path)
    assert "gave bytes 300007-" in message and "from 300000 on" in message


@pytest.mark.parametrize("status", [503, 429, 500, 408])
def test_passing_errors_are_retried(server, tmp_path, status):
    server.faults = [{"status": status}] * 2
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [404, 403, 410])
def test_lasting_errors_are_one_line_at_once(server, tmp_path, status):
    server.faults = [{"status": status}]
    message = refused(source(server), tmp_path)
    assert server.url in message and f"HTTP status {status}" in message
    assert len(server.requests) == 1 and names(tmp_path) == [f"{NAME}.lock"]


def test_no_server_and_no_answer(server, tmp_path, monkeypatch):
    dead = Source("http://127.0.0.1:1/x.tgz", sha(BODY))
    assert "refused" in refused(dead, tmp_path)
    monkeypatch.setattr(address, "TIMEOUT", 0.05)
    server.faults = [{"wait": 1}]
    assert fetch(source(server), tmp_path).read_bytes() == BODY  # what came before is kept
    assert len(server.requests) >= 2 and ranges(server)[1].startswith("bytes=")


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirects_stay_within_http(server, tmp_path, location):
    server.faults = [{"status": 302, "headers": {"Location": location}}]
    assert "HTTP status 302" in refused(Source(server.url), tmp_path)
    assert not (tmp_path / NAME).exists()
    server.faults = [{"status": 302, "headers": {"Location": "/elsewhere"}}]
    assert fetch(Source(server.url), tmp_path).read_bytes() == BODY


def test_wrong_content_is_removed(server, tmp_path):
    server.body = OTHER
    message = refused(source(server), tmp_path)
    assert sha(OTHER) in message and sha(BODY) in message and server.url in message
    assert f"{NAME}.partial" not in names(tmp_path) and NAME not in names(tmp_path)
    server.body = BODY
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    (tmp_path / NAME).unlink()
    message = refused(source(server, size=5), tmp_path)
    assert message == f"{server.url} has {len(BODY)} bytes, expected 5"  # before it is fetched
    assert "is no SHA-256" in refused(source(server, sha256="abc"), tmp_path)


def test_unknown_sum_is_pinned(server, tmp_path):
    path = fetch(Source(server.url), tmp_path)
    pin = tmp_path / f"{NAME}.sha256"
    assert pin.read_text() == f"# {server.url}\n{sha(BODY)}  {NAME}\n"
    moved = f"{server.url}?v=2"
    message = refused(Source(moved), tmp_path)
    assert f"was fetched from {server.url}, not from {moved}: remove it and {pin.name}" in message
    path.write_bytes(OTHER)
    assert "remove it to fetch it again" in refused(Source(server.url), tmp_path)
    path.unlink()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / NAME).write_bytes(OTHER)
    mirror = str(tmp_path / "mirror")
    message = refused(Source(server.url), tmp_path, mirror)
    assert sha(OTHER) in message and sha(BODY) in message and str(pin) in message
    assert not path.exists() and pin.read_text() == f"# {server.url}\n{sha(BODY)}  {NAME}\n"
    pin.write_text("what")
    assert f"{pin} is damaged" in refused(Source(server.url), tmp_path)


def test_nothing_is_pinned_that_may_be_cut(server, tmp_path):
    """Without a length the end of a connection may be that of the file or not."""
    server.faults = [{"endless": True, "close": 300_000}]
    assert "does not tell its length" in refused(Source(server.url), tmp_path)
    server.faults = [{"endless": True, "close": 300_000}]  # with a size it is known
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server)[-1] == "bytes=300000-"


@pytest.mark.parametrize("kind", ["http", "file", "folder"])
def test_mirrors(server, tmp_path, kind):
    (tmp_path / "a mirror").mkdir()
    (tmp_path / "a mirror" / NAME).write_bytes(BODY)
    url = server.url.rpartition("/")[0]
    folder = tmp_path / "a mirror"
    mirror = {"http": f"{url}/of/it/", "file": folder.as_uri(), "folder": str(folder)}[kind]
    there = Source(f"http://127.0.0.1:1/never/{NAME}", sha(BODY))
    assert fetch(there, tmp_path / "out", mirror).read_bytes() == BODY
    assert [path for path, *_ in server.requests] == [f"/data/of/it/{NAME}"] * (kind == "http")


def test_copy_from_a_folder_is_resumed_unless_changed(tmp_path):
    """Bytes that are not the file's show which of them were kept."""
    original = tmp_path / "mirror" / NAME
    original.parent.mkdir()
    original.write_bytes(BODY)
    state = original.stat()
    for folder, validator, kept in (
        ("a", f"{state.st_mtime_ns} {state.st_size}", 5),
        ("b", "1 2", 0),
    ):
        partial = tmp_path / folder / f"{NAME}.partial"
        partial.parent.mkdir()
        partial.write_bytes(b"xxxxx")
        partial.with_name(f"{partial.name}.from").write_text(f"{original}\n{validator}\n")
        path = fetch(Source(str(original)), partial.parent)
        assert path.read_bytes() == b"xxxxx"[:kept] + BODY[kept:]


def test_mirror_without_the_file(tmp_path):
    there = Source(f"http://127.0.0.1:1/{NAME}")
    assert "no such file" in refused(there, tmp_path, str(tmp_path / "none"))
    for mirror in ("ftp://host/x", "data://x", "http://", "http://a b/", "http://me:secret@host"):
        assert "neither http" in refused(there, tmp_path, mirror)


def test_unsafe_names_are_refused(server, tmp_path):
    for name in ("", "..", "%2e%2e", "a%2Fb", ".hidden", "a%20b", "x.partial", "x.sha256"):
        assert "no safe file name" in refused(Source(f"http://h/d/{name}"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(Source(f"{server.url}?download=1"), tmp_path).name == NAME


def test_two_processes_download_once(server, tmp_path, capfd):
    server.faults = [{"wait": 0.03}]
    processes = [in_child(fetch, source(server), tmp_path) for _ in range(2)]
    results = [process.receive.recv() for process in processes]
    for process in processes:
        process.join()
    assert results == [tmp_path / NAME] * 2 and (tmp_path / NAME).read_bytes() == BODY
    assert ranges(server) == [None]
    err = capfd.readouterr().err
    assert err.count(f"waiting for another download of {tmp_path / NAME}") == 1


def test_killed_download_is_resumed(server, tmp_path):
    server.faults = [{"wait": 0.1}]
    process = in_child(fetch, source(server), tmp_path)
    partial = tmp_path / f"{NAME}.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size > 100_000)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    have = partial.stat().st_size
    assert 100_000 < have < len(BODY) and not (tmp_path / NAME).exists()
    assert fetch(source(server), tmp_path).read_bytes() == BODY  # no lock is left behind
    assert ranges(server) == [None, f"bytes={have}-"]
    assert names(tmp_path) == [NAME, f"{NAME}.lock"]


def test_full_disk_keeps_what_is_there(server, tmp_path):
    with limited(500_000):
        assert f"cannot write {tmp_path / NAME}.partial" in refused(source(server), tmp_path)
    assert (tmp_path / f"{NAME}.partial").read_bytes() == BODY[:500_000]
    assert not (tmp_path / NAME).exists() and len(server.requests) == 1
    assert fetch(source(server), tmp_path).read_bytes() == BODY
    assert ranges(server)[1:] == ["bytes=500000-"]


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write" in refused(source(server), tmp_path / "file" / "folder")
    assert server.requests == []


def test_progress_in_a_log_is_lines(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "PROGRESS_EVERY", (0.1, 0.1))
    server.faults = [{"wait": 0.03}]
    fetch(source(server), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 10 and all("\r" not in line for line in lines)
    assert all(re.match(rf"{NAME}: +\d+%.*/1.02M \[\d+:\d+<\d+:\d+", line) for line in lines)
