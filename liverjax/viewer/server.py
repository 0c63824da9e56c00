"""Serves the page to this machine alone: on the loopback address, below a secret in the address, and nothing else.

No path of a file is ever part of an address: cases and layers go by their numbers, and what they hold is read by the
library and sent as a volume, never as the file's own bytes. Requests that name another host are refused, so that no
page of the web can make a browser read from here (DNS rebinding).
"""

from __future__ import annotations

import hmac
import html
import http.server
import importlib.resources
import importlib.util
import json
import logging
import pathlib
import secrets
import threading
import typing
from collections.abc import Sequence
from typing import Any

from liverjax.errors import InputError, LiverjaxError
from liverjax.viewer import study as studies_of
from liverjax.viewer.study import Study
from liverjax.volume import Volume

_LOG = logging.getLogger("liverjax")
_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript"),
    "host.js": ("host.js", "text/javascript"),
    "style.css": ("style.css", "text/css"),
}
_HEADERS = {
    # Nothing from elsewhere; NiiVue has its pictures and workers in itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(http.server.ThreadingHTTPServer):
    """Serves cases until `close`.

    Attributes:
      address: what a browser opens.
      ended: set when it has ended.
    """

    daemon_threads = True

    def __init__(self, studies: Sequence[Study], port: int = 0):
        self.bundle = niivue()
        self.studies = list(studies)
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"--port={port}: cannot be listened on ({error}), expected a free port; leave --port out"
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.address = f"http://127.0.0.1:{self.server_port}/{self.token}/"
        self.ended = threading.Event()
        # The case that is looked at is read once.
        self._reading = threading.Lock()
        self._scan: tuple[int, Volume] | None = None
        self._described: dict[int, dict[str, Any]] = {}

    def scan(self, number: int) -> Volume:
        """Returns the scan of a case; the last one is kept."""
        with self._reading:
            if self._scan is None or self._scan[0] != number:
                self._scan = None
                self._scan = number, self.studies[number].read_scan()
            return self._scan[1]

    def described(self, number: int) -> dict[str, Any]:
        """Returns what the page says of a case."""
        if number not in self._described:
            self._described[number] = self.studies[number].describe(self.scan(number))
        return self._described[number]

    def close(self) -> None:
        """Ends serving."""
        self.ended.set()
        self.shutdown()
        self.server_close()


def start(studies: Sequence[Study], port: int = 0) -> Server:
    """Starts to serve a page in a thread, and returns at once.

    Args:
      studies: the cases, in the order in which they are listed.
      port: of this machine; 0 is any that is free.

    Raises:
      InputError: the port is taken, or ipyniivue is not installed.
    """
    server = Server(studies, port)
    threading.Thread(target=server.serve_forever, name="liverjax-viewer", daemon=True).start()
    return server


def niivue() -> pathlib.Path:
    """Returns the file of the installed package ipyniivue that has NiiVue in it.

    Raises:
      InputError: it is not installed.
    """
    found = importlib.util.find_spec("ipyniivue")  # Not imported: that takes seconds.
    for folder in (found.submodule_search_locations or []) if found else []:
        file = pathlib.Path(folder) / "static" / "widget.js"
        if file.is_file():
            return file
    raise InputError("the viewer needs ipyniivue, which is not installed: pip install ipyniivue")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def viewer(self) -> Server:
        """The server, as what it is."""
        return typing.cast(Server, self.server)

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.viewer.hosts:
            self._refuse(403, "This page answers to its own address alone.")
            return
        _, token, *rest = self.path.partition("?")[0].split("/")
        if not hmac.compare_digest(token.encode(), self.viewer.token.encode()):
            self._refuse(403, "The address lacks its secret; open the one that liverjax view printed.")
            return
        try:
            self._answer(rest)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except (LiverjaxError, OSError) as error:
            self._refuse(410, str(error))
        except MemoryError:
            self._refuse(507, "There is too little memory for this volume.")
        except Exception as error:  # Whatever it is, the page says so and other cases can be looked at.
            _LOG.debug("%s", self.path, exc_info=error)
            self._refuse(500, f"{type(error).__name__}: {error}")

    def _answer(self, rest: Sequence[str]) -> None:
        match rest:
            case [name] if name in _PAGE:
                file, kind = _PAGE[name]
                page = importlib.resources.files("liverjax.viewer").joinpath("page", file)
                self._send(page.read_bytes(), kind=kind)
            case ["niivue.js"]:
                self._send(self.viewer.bundle.read_bytes(), kind="text/javascript")
            case ["cases.json"]:
                self._send_json([study.listed() for study in self.viewer.studies])
            case ["case", number] if self._study(number) is not None:
                self._send_json(self.viewer.described(int(number)))
            case ["volume", number, layer] if (study := self._study(number)) is not None:
                names = ["scan", *study.layers()]
                index = layer.removesuffix(".nii")
                if not index.isdecimal() or len(index) > 4 or int(index) >= len(names):
                    self._refuse(404, "There is no such layer.")
                    return
                self._send_volume(study, names[int(index)], self.viewer.scan(int(number)))
            case _:
                self._refuse(404, "There is no such page.")

    def _study(self, number: str) -> Study | None:
        if not number.isdecimal() or len(number) > 9 or int(number) >= len(self.viewer.studies):
            return None
        return self.viewer.studies[int(number)]

    def _send_volume(self, study: Study, name: str, scan: Volume) -> None:
        kind = name if name in ("scan", "doubt") else "mask"
        volume = scan if name == "scan" else study.read_layer(name, scan)
        self._send(
            *studies_of.file_bytes(studies_of.shown_volume(volume, kind)), kind="application/octet-stream"
        )

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value, allow_nan=False).encode(), kind="application/json")

    def _send(self, *pieces: Any, kind: str, status: int = 200) -> None:
        views = [memoryview(piece).cast("B") for piece in pieces]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(map(len, views))))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        for view in views:
            self.wfile.write(view)

    def _refuse(self, status: int, text: str) -> None:
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>liverjax</title>'
            '<meta name="color-scheme" content="light dark">'
            f'<body style="font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem">'
            f"<h1>This cannot be shown</h1><p id=error>{html.escape(text)}</p></body></html>"
        )
        self._send(page.encode(), kind="text/html; charset=utf-8", status=status)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs requests for --verbose alone, and never the secret."""
        _LOG.debug("viewer: %s", (format % args).replace(self.viewer.token, "..."))
