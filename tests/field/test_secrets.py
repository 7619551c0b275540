"""A password in `tracking.uri` was printed and kept in config.yaml, in Ray's log and in MLflow."""

import socket
from pathlib import Path

import pytest
import yaml

from search.cli import main
from search.commands.report import make_tracker
from search.config import ConfigError, load_config, parse_config, without_passwords
from search.mirror import TrackingError
from search.study import Study
from tests.helpers.studies import SIMULATED

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{PASSWORD}@host:5000",
        f"https://{PASSWORD}@host/path",
        f"postgresql+psycopg2://me:{PASSWORD}@host/runs",
        f"mysql://me:x{PASSWORD}$Y@host/runs",
        f"postgresql://host/runs?user=me&password={PASSWORD}",
        f"mssql+pyodbc:///?odbc_connect=SERVER%3Dx%3BPWD%3D{PASSWORD}",
        f"https://host/?api_key={PASSWORD}",
        f"http://me:[{PASSWORD}@host",
        f"http://me:a/{PASSWORD}@host",
        f"http:/me:{PASSWORD}@host",
        f"me:{PASSWORD}@host:5000",
        f"postgresql://me%3A{PASSWORD}@host/runs",
        f"https://host/#token={PASSWORD}",
        f"sqlite+pysqlcipher://:{PASSWORD}@//x.db",
        f"https://host/?sig={PASSWORD}",
        f"https://host/?key={PASSWORD}",
        f"https://host/?pw={PASSWORD}",
        f"https://host/?auth_code={PASSWORD}",
        f"https://host/?code={PASSWORD}",
        f"//me:{PASSWORD}@host",
        f"file://me:{PASSWORD}@host",
        f"file://me:[{PASSWORD}@host",
        f"sqlite://me:{PASSWORD}@host",
        f"postgresql:/me:{PASSWORD}@host",
        f"postgresql://me: {PASSWORD}@host",
        f"mssql+pyodbc:///?odbc_connect=PWD%3D{PASSWORD}",
        f"mssql+pyodbc:///?odbc_connect=PWD%253D{PASSWORD}",
        f"mssql+pyodbc:///?odbc_connect=PWD={{{PASSWORD}}}",
    ],
)
def test_a_password_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking: uri must not hold a password") as refused:
        parse_config(SIMULATED | {"tracking": {"uri": uri}})
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [{"tracking": f"http://me:{PASSWORD}@h"}, {"tracking": {"uri": [f"http://me:{PASSWORD}@h"]}},
     {"evaluator": f"http://me:{PASSWORD}@h"}],
)  # fmt: skip
def test_no_error_repeats_it_wherever_it_stands(changed: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"http://\*\*\*@h") as refused:
        parse_config(SIMULATED | changed)
    assert PASSWORD not in str(refused.value)


FORMS = [
    f"postgresql://h/r?user=me&password={PASSWORD}",
    f"me:{PASSWORD}@host:5000",
    f"https://h/?api_key={PASSWORD}",
    f"https://h/#token={PASSWORD}",
    f"postgresql:/u:{PASSWORD}@h/x",
    f"postgresql:/u:x/{PASSWORD}@h/x",
    f"postgresql://u: {PASSWORD}@h",
    f"postgresql://u:my {PASSWORD}@h",
    f"u: {PASSWORD}@h",
    f"//u:{PASSWORD}@h",
    f"file://u:{PASSWORD}@h",
    f"http:/{PASSWORD}@h",
    f"http://u:it's{PASSWORD}@h",
    f"http://u:it's \"{PASSWORD}@h",
    f"odbc_connect=PWD%3D{PASSWORD}",
    f"odbc_connect=PWD%253D{PASSWORD}",
    f"mssql:///?odbc_connect=SERVER%3Dx%3BPWD%3D{PASSWORD}%3Bx%3D1",
    f"x?odbc_connect=PWD={{a;{PASSWORD}}}",
    f"PWD={PASSWORD};SERVER=x",
    f"SERVER=x;PWD = my {PASSWORD}",
    f"https://h/?pw={PASSWORD}",
    f"https://h/?code={PASSWORD}",
    f"https://{'h' * 150}/?password={PASSWORD}",
    f"http://u:{PASSWORD}{'x' * 200}@h",
]


@pytest.mark.parametrize("uri", FORMS)
def test_no_error_repeats_it_whatever_its_form(uri: str) -> None:
    for changed in (
        {"tracking": uri}, {"tracking": {"uri": [uri]}}, {"evaluator": uri}, {uri: 3},
        {"tracking": {uri: 3}}, {"strategies": {"es": uri}}, {"strategies": {"es": {"grid": uri}}},
        {"strategies": uri}, {"tasks": [uri]}, {"seeds": [uri]}, {"objective": {"cost": uri}},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"\*\*\*") as refused:
            parse_config(SIMULATED | changed)
        assert PASSWORD not in str(refused.value)


def test_no_error_repeats_what_stands_under_its_name() -> None:
    for value in ({"password": PASSWORD}, [{"db_pw": PASSWORD}]):
        for changed in ({"tracking": {"uri": value}}, {"strategies": {"es": {"grid": value}}}):
            with pytest.raises(ConfigError, match=r"\*\*\*") as refused:
                parse_config(SIMULATED | changed)
            assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("uri", FORMS)
@pytest.mark.parametrize("quote", ["", '"'])
def test_no_error_of_a_setting_repeats_it(uri: str, quote: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(SIMULATED))
    value = quote + (uri.replace('"', '\\"') if quote else uri) + quote
    for override in (f"tracking={value}", f"seeds=[1, {value}]", f"tracking={value} #x", value):
        with pytest.raises(ConfigError) as refused:
            load_config(path, [override])
        assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["got 'sqlite:////a@b/mlflow.db'", "there is no /data/a:b@c/mlruns", "tracking: me@host",
     "as in postgresql://me:$DB_PASSWORD@host/runs", "--set needs key=value, got 'a=b'",
     "file:///a/b@c: x must be 3", "a.yaml, line 3: http://host/?user=me is 'x' or it's \"y\""],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_passwords(text) == text


def test_no_error_of_the_command_line_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "a.yaml", "--set", "x=1", "tracking.uri", f"http://me:{PASSWORD}@host"])
    assert main(["search", "a.yaml", "--set", f"tracking.uri:http://me:{PASSWORD}@host"]) == 2
    assert PASSWORD not in capsys.readouterr().err


@pytest.mark.parametrize("lines", ["tracking:\n\turi: {}\n", "tracking: {{uri: a: {}}}\n"])
def test_no_line_of_the_file_is_repeated(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(lines.format(f"http://me:{PASSWORD}@host"))
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "postgresql://me@host/runs", "sqlite:////a@b/mlflow.db", "databricks",
     "postgresql://me:${PW}@host/runs", "http://host/?token=$PW", "http://host/a@b",
     "/data/a:b@c/mlruns", "postgresql://host/runs?user=me@host"],
)  # fmt: skip
def test_other_uris_are_taken_as_they_are(uri: str) -> None:
    assert parse_config(SIMULATED | {"tracking": {"uri": uri}}).tracking.uri == uri


def test_a_variable_stands_for_it_wherever_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    uri = f"http://me:$PW@127.0.0.1:{port}"
    config = parse_config(SIMULATED | {"tracking": {"uri": uri}, "output": str(tmp_path)})
    study = Study.create(config)
    assert PASSWORD not in (study.folder / "config.yaml").read_text()
    monkeypatch.delenv("PW", raising=False)
    with pytest.raises(ValueError, match=r"names \$PW, which is not set"):
        make_tracker(study)
    monkeypatch.setenv("PW", PASSWORD)
    tracker = make_tracker(study)()
    assert tracker.uri == f"http://me:{PASSWORD}@127.0.0.1:{port}"
    with pytest.raises(TrackingError, match=rf"me:\*\*\*@127\.0\.0\.1:{port} failed") as failed:
        tracker.start({})
    assert PASSWORD not in str(failed.value)
    assert main(["ui", str(study.folder)]) == 0
    assert PASSWORD not in capsys.readouterr().out


def test_a_variable_that_is_not_set_is_told_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PW", raising=False)
    path = tmp_path / "a.yaml"
    changed = {"tracking": {"uri": "http://me:$PW@host"}, "output": str(tmp_path)}
    path.write_text(yaml.safe_dump(SIMULATED | changed))
    assert main(["search", str(path)]) == 2
    assert "tracking.uri names $PW, which is not set" in capsys.readouterr().err
    assert not (tmp_path / "simulated").exists()
