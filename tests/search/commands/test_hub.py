"""An export on the Hub: its client against a server here that keeps what is committed."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers import ROOT

PUSH = (
    "import sys; from pathlib import Path\n"
    "from search.commands.hub import HubError, push_to_hub, require_login\n"
    "try:\n"
    "    require_login(sys.argv[2])\n"
    "    private = 'private' in sys.argv\n"
    "    print(push_to_hub(Path(sys.argv[1]), sys.argv[2], private=private))\n"
    "except HubError as error:\n"
    "    print('refused:', error)\n"
)


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that a commit of small files takes."""

    made: list[str]
    gone: list[str]
    files: dict[str, bytes]

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer hf_right"
        if "/tree/" in self.path:
            old = {"type": "file", "oid": "1" * 40, "size": 3}
            self._answer([{**old, "path": name} for name in ("old/network.onnx", "LICENSE")])
        elif known:
            self._answer({"name": "me", "type": "user"})
        else:
            self._answer({"error": "Invalid token"}, 401)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            said = json.loads(body)
            hidden = "private" in (said.get("visibility"), "private" * bool(said.get("private")))
            self.made.append(name + ", private" * hidden)
            here = f"http://{self.headers['Host']}"
            self._answer({"url": f"{here}/me/{name}", "name": f"me/{name}"})
        elif self.path == "/api/validate-yaml":  # of the card's head
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            how = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": file["path"], **how} for file in files]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.files[entry["value"]["path"]] = content
                elif entry["key"] == "deletedFile":
                    self.gone.append(entry["value"]["path"])
            url = f"http://{self.headers['Host']}/me/shop/commit/{'1' * 40}"
            self._answer({"commitOid": "1" * 40, "commitUrl": url, "success": True})
        else:
            self._answer({}, 404)

    def _answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kept = type("Kept", (Hub,), {"made": [], "gone": [], "files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kept)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()
    server.server_close()
    thread.join()


def push(folder: Path, name: str, endpoint: str, token: str, home: Path, *more_words: str) -> str:
    more = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(home)}
    more |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **more}
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), name, *more_words],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_all_files_are_in_one_commit(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, kept = hub
    folder = tmp_path / "networks"
    (folder / "digits").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: onnx\n---\n# card\n")
    (folder / "digits" / "network.onnx").write_bytes(bytes(range(256)))
    where = push(folder, "me/shop", endpoint, "hf_right", tmp_path)
    assert where.startswith(f"{endpoint}/me/shop/commit")
    assert kept.made == ["shop"]
    assert kept.gone == ["old/network.onnx"], "what another export left goes, and nothing else"
    assert kept.files.keys() == {"README.md", "digits/network.onnx"}
    assert kept.files["digits/network.onnx"] == bytes(range(256))
    push(folder, "me/other", endpoint, "hf_right", tmp_path, "private")
    assert kept.made == ["shop", "other, private"]


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("me/shop", "hf_wrong", "refused: the Hub does not know who pushes: `hf auth login`"),
        ("me/a/b", "hf_right", "refused: 'me/a/b' cannot be a repository"),
        ("me/a--b", "hf_right", "refused: 'me/a--b' cannot be a repository"),
        ("shop", "hf_right", "refused: 'shop' cannot be a repository: give OWNER/NAME"),
    ],
)
def test_what_is_refused_before_anything(
    name: str, token: str, message: str, hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    endpoint, kept = hub
    assert message in push(tmp_path, name, endpoint, token, tmp_path)
    assert not kept.made
