"""`apportion cluster check` without a cluster; tests/cluster has one."""

from pathlib import Path

import pytest

from search.cli import main
from search.commands.cluster import ClusterError, read_cluster
from tests.helpers import ROOT

FILES = [ROOT / "cluster.yaml", ROOT / "configs/cluster/aws.yaml"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_shipped_files_are_what_ray_takes(file: Path) -> None:
    content = read_cluster(file)
    assert content["setup_commands"] == ["sh ~/apportion/configs/cluster/setup.sh"]
    # Patterns hold for what is fetched as well, so each is tied to the top of what is copied.
    assert all(pattern.startswith(("/", "__")) for pattern in content["rsync_exclude"])


def test_the_example_is_not_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "check", str(FILES[0])]) == 1
    printed = capsys.readouterr().out
    assert printed.count("an address: this one stands for yours in the example") == 3
    assert "nothing is missing" not in printed


def test_a_cloud_that_cannot_be_reached(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    assert main(["cluster", "check", str(FILES[1])]) == 1
    assert "missing credentials of AWS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read"),
        ("tasks: []", "has no provider"),
        ("provider: {type: local, head_ip: 10.0.0.1}", "Ray refuses"),
        ("provider: {type: locale}", "Ray refuses"),
        (FILES[0].read_text().replace("  ssh_user: ubuntu\n", ""), "has no auth.ssh_user"),
    ],
)
def test_files_that_are_none(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ClusterError, match=said):
        read_cluster(file)


def test_a_machine_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """192.0.2 would pass for the example; of 240 no address is given to anyone."""
    key = tmp_path / "key"
    key.write_text("")
    key.chmod(0o644)
    text = FILES[0].read_text().replace("192.0.2.10", "240.0.0.9")
    text = text.replace("[192.0.2.11, 192.0.2.12]", "[]").replace("~/.ssh/id_ed25519", str(key))
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    assert main(["cluster", "check", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "missing 240.0.0.9: a way in by ssh" in printed
    assert f"missing a key that only you may read: chmod 600 {key}" in printed
