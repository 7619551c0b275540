"""The command that calibrates, on a real Ray, and what later commands say of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from partitioning import read_json
from search.calibration import write_calibration
from search.cli import main
from search.config import dump_config
from search.study import Study
from tests.helpers.calibrations import measurements
from tests.helpers.studies import calibrated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


def test_the_command(
    tmp_path: Path, cache: Path, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = calibrated(tmp_path, cache, threshold=1.0)
    config = replace(config, strategies={"random": config.strategies["random"]}, candidates=3)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(dump_config(replace(config, candidates=2))))
    assert main(["calibrate", str(path), "--set", "candidates=3"]) == 0
    assert Study(config.folder).config.candidates == 3
    path.write_text(yaml.safe_dump(dump_config(config)))
    said = capsys.readouterr().out
    assert "calibration 7/7" in said
    assert "mean over tasks" in said
    assert "no verdict on the proxy: 5 candidates" in said
    assert main(["calibrate", str(config.folder), "--set", "candidates=4"]) == 2
    assert "--set changes a config" in capsys.readouterr().err
    folder = config.folder / "calibration"
    for name in ("calibration.json", "calibration.csv", "calibration.png"):
        assert (folder / name).stat().st_size > 100
    assert main(["calibrate", str(config.folder), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == read_json(folder / "calibration.json")
    assert (summary["candidates"], summary["trained_twice"], summary["trusted"]) == (5, 2, None)
    # The search that follows warns, and its page shows the calibration.
    assert main(["search", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("warning: no verdict on the proxy: 5 candidates") == 1
    assert "no verdict on the proxy" in (config.folder / "front.html").read_text()
    assert main(["report", str(config.folder)]) == 0
    said = capsys.readouterr().out
    assert str(folder / "calibration.png") in said
    assert "no verdict on the proxy" in said
    # One that is trusted is not warned of.
    lower = replace(config, calibration=replace(config.calibration, threshold=-1.0))
    study = Study(config.folder)
    study.config = lower
    assert write_calibration(study, measurements())["trusted"]
    path.write_text(yaml.safe_dump(dump_config(replace(lower, candidates=4))))
    assert main(["search", str(path), "--resume"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_neither_a_study_nor_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "is not a study" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "none.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err
