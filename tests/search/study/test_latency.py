"""Latency as what a study makes small, and as what candidates are picked by."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from rich.console import Console

from partitioning import write_json
from search.arms.stages import decoded
from search.candidates import Candidate
from search.cli import main
from search.commands.benchmark_front import benchmark_front, draw_front_timings
from search.commands.search import search
from search.comparison.selection import Terms
from search.config import ConfigError, parse_config
from search.record import Record
from search.study import Study, StudyError, baselines, build_space
from search.study import latency as latency_module
from search.study.latency import latency_table
from tests.helpers.candidates import measurement
from tests.helpers.commands import refused
from tests.helpers.studies import SIMULATED, simulated
from trainers.cost import costs
from trainers.export import LatencyTable
from trainers.networks import LAYERS, BackboneConfig, build_backbone

FEW = {"candidates": 6, "input_size": 8, "schedule": {"cohort": 2}}


def table_of(price: float) -> LatencyTable:
    """A table in which every layer takes as long, whatever it has."""
    backbone = build_backbone(BackboneConfig(model="resnet14", args={"width": 4}), 8)
    layers = [n for n, m in backbone.model.named_modules() if isinstance(m, LAYERS)]
    return LatencyTable(
        device="", batch=1, threads=1, milliseconds=dict.fromkeys(layers, ((price,),)),
        coefficients=(0.0, 1.0), error=0.0,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_search_for_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = simulated(
        **FEW, output=str(tmp_path), objective={"cost": "latency", "latency_batch": 2}
    )
    said = io.StringIO()
    try:
        study = search(settings, console=Console(file=said, width=200))
        assert "latency: of 2 images at a time on" in said.getvalue()
        (kept,) = (study.folder / "foundation").glob("latency-*.json")
        table = study.latency()
        assert table is not None
        assert table.content == LatencyTable.of(table.content).content
        for candidate in study.candidates():
            assert candidate.costs is not None
            predicted = table.relative(study.config.network, candidate.masks)
            assert candidate.cost == candidate.costs.relative_latency == pytest.approx(predicted)
            assert candidate.shares["latency"] == candidate.cost
        middle = sorted(c.cost or 0 for c in study.candidates())[3]
        assert study.pick(f"best@latency<={middle}").id == study.pick(f"best@{middle}").id
        assert Terms.of(study).costs[1] == 1.0 > Terms.of(study).costs[0] > 0
        # What is resumed would go on by another table.
        write_json(kept, table_of(1.0).content, sealed=True)
        with pytest.raises(StudyError, match="how the table of latencies is made"):
            search(settings, resume=True, console=Console(file=io.StringIO()))
    finally:
        ray.shutdown()
    assert main(["report", str(study.folder)]) == 0
    assert "latency per task" in (study.folder / "front.html").read_text()
    capsys.readouterr()


def test_picked_by_latency_where_something_else_was_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searched(tmp_path)
    calls = []

    def measured(**job: object) -> LatencyTable:
        calls.append(job)
        return table_of(1.0)

    monkeypatch.setattr(latency_module, "measure_latency", measured)
    assert study.latency() is None
    assert study.pick("best@latency<=1").id == study.pick("best").id
    assert study.pick("best@latency<=1").id == study.pick("best").id
    assert len(calls) == 1  # it is kept with the study
    with pytest.raises(
        StudyError, match=r"no candidate of latency 0.5 or less; the least is 1.000"
    ):
        study.pick("best@latency<=0.5")


def searched(folder: Path) -> Study:
    """A study whose candidates share every channel, or less."""
    config = simulated(**FEW, output=str(folder))
    study = Study.create(config)
    space = build_space(config)
    with Record(study.record_path, study.name) as record:
        for index, (name, vector) in enumerate(baselines(config, space, 0).items()):
            candidate = Candidate(
                strategy="baselines", seed=0, index=index, vector=tuple(map(float, vector)),
                names=tuple(space.names()), label=name,
            )  # fmt: skip
            candidate = decoded(space, candidate, realisable=False)
            counted = costs(config.network, candidate.masks, [2, 2, 2])
            quality = 0.5 + 0.1 * index
            record.add(
                replace(
                    candidate, quality=quality, cost=counted.relative_macs, costs=counted,
                    rungs=(measurement(quality, {"a": quality}),),
                )
            )  # fmt: skip
    return study


def test_a_front_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    study = searched(tmp_path)
    timings = benchmark_front(study, ["baselines-0-0", "best"], batches=[1, 2])
    names = ["baselines-0-0", study.pick("best").id]
    assert [(t.candidate, t.batch) for t in timings] == [(n, b) for n in names for b in (1, 2)]
    (share_all,) = {c.id for c in study.candidates() if c.label == "share_all"} & set(names)
    alike = next(t for t in timings if t.candidate == share_all)
    assert alike.relative == 1.0  # as large as the undivided network, timed once
    assert all(t.ms > 0 and t.quality > 0 and t.cost > 0 for t in timings)
    draw_front_timings(timings, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
    assert main(["benchmark", str(study.folder), "--pick", "best", "--batch", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["candidate"], row["batch"], row["threads"]) == (names[1], 2, 1)
    assert "--int8 is for exports" in refused(capsys, "benchmark", study.folder, "--int8")
    assert "at least 1" in refused(capsys, "benchmark", study.folder, "--batch", "0")
    assert "--pick is for studies" in refused(capsys, "benchmark", tmp_path, "--pick", "best")


def test_tables_are_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache may lie where machines of other kinds use it, too."""
    prices = iter([1.0, 2.0])
    monkeypatch.setattr(latency_module, "measure_latency", lambda **job: table_of(next(prices)))
    one, other = (
        Study.create(
            simulated(**FEW, name=name, output=str(tmp_path), cache=str(tmp_path / "cache"))
        )
        for name in ("one", "other")
    )
    first, second = (latency_table(study.config, say=lambda line: None) for study in (one, other))
    assert (first, second) == (table_of(1.0), table_of(2.0))
    assert latency_table(one.config, say=lambda line: None) == first


def test_methods_have_no_latency() -> None:
    methods = {
        "name": "m", "tasks": [{"name": "digits", "source": "toy"}], "input_size": 8,
        "backbone": {"trunk": "train"}, "methods": {"shared": {}},
        "objective": {"cost": "latency"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"objective\.cost must not be latency where methods"):
        parse_config(methods)
    assert parse_config(SIMULATED | {"objective": {"cost": "latency"}})
