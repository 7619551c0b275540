"""The README's example does what it says, and the files it names are there."""

import re
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(example, "README.md", "exec"), {})
    finally:
        ray.shutdown()
    printed = capsys.readouterr().out
    assert re.search(r"\w+-0-\d+ \{'digits': ", printed)
    assert (tmp_path / "studies/example/front.png").exists()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_command_and_config_is_named() -> None:
    from search.cli import build_parser

    (commands,) = (a for a in build_parser()._actions if a.choices)
    for command in commands.choices or ():
        assert f"apportion {command}" in README
    for config in (ROOT / "configs").glob("*.yaml"):
        assert f"configs/{config.name}" in README
