"""`apportion ui`: a study's page and MLflow, or a list of studies, in a browser on this machine."""

import html
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from search.candidates import Candidate
from search.commands.listing import Listed, in_bytes, is_study, list_studies, words
from search.commands.page import PAGE
from search.commands.report import make_tracker, write_report
from search.config import without_passwords
from search.mirror import TrackingError, default_uri, free_port, mlflow_page
from search.study import Say, Study, StudyError

HOST = "127.0.0.1"
#: What of a folder a browser is given.
SHOWN = (".html", ".png", ".csv", ".json")

STYLE = """
body { font-family: sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse } td, th { padding: .3em 1em .3em 0; text-align: left }
td.number { text-align: right } .reason { color: #a33 }
"""


def show_study(study: Study, port: int, *, say: Say, browser: bool) -> int:
    """Serve a study's page and its MLflow store until this process is asked to end.

    Args:
        study: The study.
        port: Of MLflow; the page has the next one, or any that is free. 0 takes any for both.
        say: Called with the addresses.
        browser: Open the page in one.

    Returns:
        1 where MLflow ended by itself. Else it goes on until it is interrupted, but for a store
        that others serve, of which the addresses are said.

    Raises:
        StudyError: The port is in use, or the page cannot be written.
        TrackingError: MLflow cannot be started.
    """
    uri = study.store_uri
    if not uri.startswith("sqlite:"):
        written_page(study)
        say(f"page: {(study.folder.absolute() / PAGE).as_uri()}")
        say(f"this study's runs are at {without_passwords(uri)}")
        return 0
    port = _free(port)
    written_page(study)
    with _pages(study.folder, _next(port)) as address:
        say(f"page: {address}/{PAGE}")
        if browser:
            webbrowser.open(f"{address}/{PAGE}")
        if uri == default_uri(study.folder) and not (study.folder / "mlflow.db").is_file():
            say(f"MLflow has no runs of it yet: apportion report {study.folder} --sync")
            say("Ctrl-C ends it")
            threading.Event().wait()
        with mlflow_page(uri, port) as process:
            say(f"MLflow: http://{HOST}:{port}/{_view(study)}")
            say("Ctrl-C ends both")
            process.wait()
    raise TrackingError(f"MLflow's page ended by itself, with status {process.returncode}")


def show_studies(folder: Path, port: int, *, say: Say, browser: bool) -> int:
    """Serve a list of all studies of a folder, and their pages, until it is interrupted.

    Raises:
        StudyError: There is no such folder, or the port is in use.
    """
    list_studies(folder)
    with _pages(folder, _free(port)) as address:
        say(f"studies of {folder}: {address}/")
        say("Ctrl-C ends it")
        if browser:
            webbrowser.open(f"{address}/")
        threading.Event().wait()
    return 0


def has_browser() -> bool:
    """Whether somebody sits at a terminal of a machine whose browsers have a screen."""
    has_screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and (has_screen or sys.platform == "darwin")


def written_page(study: Study) -> Path:
    """A study's page, written where it is missing or older than the record.

    Raises:
        StudyError: It cannot be written.
    """
    page = study.folder / PAGE
    try:
        record = study.record_path
        is_old = record.is_file() and page.is_file() and _when(page) < _when(record)
        if is_old or not page.is_file():
            write_report(study)
    except OSError as error:
        raise StudyError(f"the page {page} cannot be written: {error.strerror}") from error
    return page


def _when(path: Path) -> float:
    return path.stat().st_mtime


def _view(study: Study) -> str:
    """Where in MLflow the study is; its root where that has no runs of it."""
    tracker = make_tracker(study)()
    return str(tracker.view()) if tracker.attach() else ""


def _free(port: int) -> int:
    try:
        return free_port(port)
    except OSError as error:
        raise StudyError(f"port {port} is in use; choose another --port") from error


def _next(port: int) -> int:
    """The port after one, or any where that is in use."""
    try:
        return free_port(port + 1)
    except (OSError, OverflowError):
        return 0


@contextmanager
def _pages(folder: Path, port: int) -> Iterator[str]:
    """Serve pages of a study, or of a folder of them, from a thread; yields the address."""
    handler: Callable[..., Any] = partial(_Pages, directory=str(folder.absolute()))
    with ThreadingHTTPServer((HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True, name="pages")
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()


#: Pages are written one after the other.
_WRITING = threading.Lock()


class _Pages(SimpleHTTPRequestHandler):
    """Gives a browser pages, pictures and tables of a folder, and a list where there is none."""

    def do_GET(self) -> None:
        """A file; of a folder of studies, their list, and a study's page, written if missing."""
        root = Path(self.directory)
        parts = [part for part in unquote(urlsplit(self.path).path).split("/") if part]
        if not parts and not is_study(root):
            self._answer(studies_page(list_studies(root), root))
            return
        folder = root.joinpath(*parts[:-1]) if parts[-1:] == [PAGE] else root.joinpath(*parts)
        if ".." not in parts and len(parts) <= 2 and is_study(folder):
            if parts[-1:] != [PAGE]:
                self._go_to("/".join(["", *map(quote, parts), PAGE]))
                return
            try:
                with _WRITING:
                    written_page(Study(folder))
            except Exception as error:  # of a damaged study; the server goes on
                self._answer(f"<p class=reason>{html.escape(without_passwords(str(error)))}</p>")
                return
        super().do_GET()

    def do_HEAD(self) -> None:
        """Nothing but what a browser sees is given."""
        self.send_error(405)

    def send_head(self) -> Any:
        """A file, unless it is of another kind than those that are shown."""
        path = Path(self.translate_path(self.path))
        if path.suffix not in SHOWN or not path.is_file():
            self.send_error(404)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's news."""

    def _go_to(self, place: str) -> None:
        self.send_response(302)
        self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, body: str) -> None:
        data = f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def studies_page(studies: list[Listed], folder: Path) -> str:
    """The list of a folder's studies as the body of a page, each a link to its own."""
    if not studies:
        return f"<h1>{html.escape(str(folder))}</h1><p>no studies here</p>"
    titles = ("study", "state", "candidates", "size", "best", "knee", "in MLflow")
    rows = []
    for one in studies:
        name = html.escape(one.name)
        if one.state != "damaged":
            name = f'<a href="/{quote(one.name)}/{PAGE}">{name}</a>'
        state = html.escape(one.state)
        if one.reason:
            state += f'<br><span class="reason">{html.escape(one.reason)}</span>'
        command = f"<code>apportion ui {html.escape(str(one.folder))}</code>"
        cells = [name, state, str(one.candidates), in_bytes(one.bytes), _quality(one.best)]
        cells += [html.escape(words(one.knee)), command]
        kinds = ("", "", "number", "number", "number", "", "")
        rows.append(
            "<tr>"
            + "".join(f'<td class="{k}">{c}</td>' for k, c in zip(kinds, cells, strict=True))
            + "</tr>"
        )
    head = "".join(f"<th>{title}</th>" for title in titles)
    return (
        f"<title>studies</title><h1>{html.escape(str(folder))}</h1>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>"
    )


def _quality(candidate: Candidate | None) -> str:
    return "" if candidate is None else f"{candidate.quality:.3f}"
