"""`apportion ui` in processes of its own: what it serves, and that nothing of it is left."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from search.cli import main
from search.commands.listing import list_studies
from search.commands.ui import studies_page, written_page
from search.study import Study, StudyError
from tests.helpers import ROOT
from tests.helpers.commands import refused
from tests.search.commands.test_fronts import made

POINTS = [(None, 0.5, 0.2), ("share_half", 0.8, 0.5), (None, 0.85, 1.0)]
MIRROR = """
import sys
from search.commands.sync import sync
from search.study import Study
sync(Study(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with runs in MLflow, made once."""
    study = made(tmp_path_factory.mktemp("kept"), POINTS)  # type: ignore[arg-type]
    subprocess.run([sys.executable, "-c", MIRROR, study.folder], cwd=ROOT, check=True)
    return study.folder


@pytest.fixture
def study(kept: Path, tmp_path: Path) -> Study:
    """A copy without its page."""
    shutil.copytree(kept, tmp_path / "studies" / "small")
    (tmp_path / "studies" / "small" / "front.html").unlink(missing_ok=True)
    return Study(tmp_path / "studies" / "small")


class Ui:
    """The command, as it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.said = process, ""

    def line(self, words: str, within: float = 240) -> str:
        """The line that begins so, once it is said."""
        end = time.monotonic() + within
        assert self.process.stdout is not None
        while not (found := re.search(rf"^{words}.*$", self.said, re.MULTILINE)):
            assert time.monotonic() < end, f"{words!r} is not said, but {self.said!r}"
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            if ready:
                text = os.read(self.process.stdout.fileno(), 65536).decode()
                assert text, f"it ended, having said {self.said!r}"
                self.said += text
        return found[0]

    def address(self, words: str) -> str:
        return re.findall(r"http://\S+", self.line(words))[0]


@contextmanager
def running(*arguments: object, cwd: Path = ROOT) -> Iterator[Ui]:
    command = [sys.executable, "-m", "apportion", "ui", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Ui(process)
    finally:
        if process.poll() is None:  # it has been found wanting; what it started must not stay
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        process.kill()
        process.communicate()


def fetched(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())


def refused_with(address: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(address, timeout=60)
    answer.value.close()
    return answer.value.code


def left(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (path.parent / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(path.parent.name) != os.getpid() and str(folder) in words + environment:
            found.append(words)
    return found


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_study_until_it_is_interrupted(study: Study, number: signal.Signals) -> None:
    with running(study.folder, "--port", 0) as ui:
        page = ui.address("page: ")
        assert "Content-Security-Policy" in fetched(page)
        assert (study.folder / "front.html").is_file(), "it is written where it was missing"
        assert fetched(page.removesuffix("front.html")) == fetched(page)
        for secret in ("record.journal", "mlflow.db", "foundation", "../small/front.html"):
            assert refused_with(page.removesuffix("front.html") + secret) == 404
        mlflow = ui.address("MLflow: ")
        own = re.fullmatch(
            r"http://127\.0\.0\.1:(\d+)/#/experiments/(\d+)/runs\?workflowType=machine_learning"
            r"&viewStateShareKey=(\w+)&compareRunsMode=CHART",
            mlflow,
        )
        assert own is not None, mlflow
        port, experiment, view = own.groups()
        assert int(port) != 0
        root = f"http://127.0.0.1:{port}"
        kept = fetched(f"{root}/ajax-api/2.0/mlflow/experiments/get?experiment_id={experiment}")
        assert f"mlflow.sharedViewState.{view}" in kept, "the view is there"
        assert '"disable_ui_telemetry":true' in fetched(
            f"{root}/ajax-api/3.0/mlflow/ui-telemetry"
        ).replace(" ", "").replace("\n", "")
        ui.line("Ctrl-C ends both")
        assert any("mlflow" in line for line in left(study.folder))
        ui.process.send_signal(number)
        assert ui.process.wait(120) == 128 + number
    assert left(study.folder) == []
    for address in (page, root):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=5)


@pytest.mark.slow
def test_interrupted_before_mlflow_answers(study: Study) -> None:
    with running(study.folder, "--port", 0) as ui:
        ui.address("page: ")
        end = time.monotonic() + 120
        while not any("mlflow ui" in line for line in left(study.folder)):
            assert time.monotonic() < end
            time.sleep(0.05)
        ui.process.send_signal(signal.SIGTERM)
        assert ui.process.wait(120) == 128 + signal.SIGTERM
    assert left(study.folder) == []


def test_a_list_of_studies(study: Study) -> None:
    folder = study.folder.parent
    (folder / "broken").mkdir()
    (folder / "broken" / "config.yaml").write_text("{")
    (folder / "broken" / "secret.txt").write_text("secret")
    with running("--port", 0, cwd=folder.parent) as ui:  # ./studies
        root = ui.address("studies of studies: ")
        said = fetched(root)
        assert 'href="/small/front.html"' in said
        assert "0.800 at cost 0.500 (share_half)" in said
        assert "damaged" in said
        assert 'href="/broken' not in said
        assert "Content-Security-Policy" in fetched(f"{root}small/")
        assert "damaged" in fetched(f"{root}broken/")
        assert refused_with(f"{root}broken/secret.txt") == 404
        assert refused_with(f"{root}nothing/front.html") == 404
        ui.process.send_signal(signal.SIGTERM)
        assert ui.process.wait(120) == 128 + signal.SIGTERM


def test_a_page_that_is_older_than_the_record_is_written_anew(study: Study) -> None:
    page = written_page(study)
    os.utime(page, (1, 1))
    before = page.stat().st_mtime
    assert written_page(study).stat().st_mtime > before
    kept = page.stat().st_mtime_ns
    assert written_page(study).stat().st_mtime_ns == kept


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "<b>").mkdir()
    (tmp_path / "<b>" / "config.yaml").write_text("{")
    page = studies_page(list_studies(tmp_path), tmp_path)
    assert "<b>" not in page
    assert "no studies here" in studies_page([], tmp_path)


def test_what_cannot_be_shown(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use" in refused(capsys, "ui", study.folder, "--port", port)
        assert f"port {port} is in use" in refused(
            capsys, "ui", study.folder.parent, "--port", port
        )
    assert "is not a study" in refused(capsys, "ui", tmp_path / "none")
    (study.folder / "config.yaml").write_text("{")
    assert main(["ui", str(study.folder), "--port", "0"]) == 2


def test_a_folder_that_cannot_be_written(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(study: Study) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.commands.ui.write_report", full)
    with pytest.raises(StudyError, match=r"front\.html cannot be written: No space"):
        written_page(study)
