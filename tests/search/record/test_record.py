"""The record: round trips, one writer, and what plain Optuna makes of it."""

import json
import math
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.candidates import Measurement
from search.record import Record, read_record
from search.record.record import DuplicateCandidate, RecordError
from tests.helpers.candidates import costs, decoding, measurement
from tests.helpers.records import NAMES, in_process, load_arm, make, process


class TestRoundTrip:
    def test_what_was_added_comes_back_exactly(self, path: Path) -> None:
        added = [make(index=1), make(index=0), make("random", 3, 2), make("es", 1, 0)]
        with Record(path, "toy") as record:
            for candidate in added:
                record.add(candidate)
            expected = [added[1], added[0], added[3], added[2]]
            assert record.candidates() == expected
            assert record.candidates(strategy="es", seed=0) == expected[:2]
            assert record.candidates(seed=3) == [added[2]]
        assert read_record(path, "toy") == expected
        with Record(path, "toy") as record:
            assert record.candidates() == expected

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_candidate(self, data: st.DataObject, tmp_path_factory: object) -> None:
        vector = data.draw(st.lists(st.floats(0, 1), max_size=5))
        numbers = st.floats(allow_nan=False)
        by_name = st.dictionaries(st.text(), numbers, max_size=3)
        measurements = st.builds(
            Measurement,
            steps=st.integers(1, 10**6),
            fidelity=st.sampled_from(("proxy", "full")),
            quality=st.none() | numbers,
            accuracy=by_name,
            distillation_loss=by_name,
            seconds=st.none() | numbers,
            quality_std=st.none() | numbers,
            error=st.none() | st.text(min_size=1),
            evaluator=st.text(),
        )
        decodings = st.builds(
            decoding,
            st.just(("digits", "shapes")),
            deviation=by_name,
            bound=by_name,
            proven=st.none() | st.booleans(),
            realisable=st.none() | st.lists(numbers, min_size=1, max_size=3).map(tuple),
        )
        candidate = make(
            vector=tuple(vector),
            names=tuple(f"use[{i}]" for i in range(len(vector))),
            quality=data.draw(st.floats(allow_nan=False, allow_infinity=False)),
            label=data.draw(st.none() | st.text(min_size=1)),
            decoding=data.draw(st.none() | decodings),
            rungs=tuple(data.draw(st.lists(measurements, max_size=3))),
            stopped=data.draw(st.booleans()),
            started=data.draw(st.floats(0, 4e9)),
        )
        folder = tmp_path_factory.mktemp("any")  # type: ignore[attr-defined]
        with Record(folder / "record.journal", "toy") as record:
            record.add(candidate)
        [found] = read_record(folder / "record.journal", "toy")
        assert found == candidate

    def test_numbers_of_numpy_and_numbers_json_lacks(self, path: Path) -> None:
        strange = make(
            quality=np.float64(0.5),
            cost=np.float32(0.5),
            rungs=(measurement(0.5, {"digits": np.float32(0.5), "shapes": math.nan}),),
            costs=costs({"digits": 0.5}, union_parameters=np.int64(7), relative_macs=math.inf),
            decoding=replace(
                decoding(("digits",)), realised={"block0": np.eye(2)}, proven=np.bool_(True)
            ),
        )
        with Record(path, "toy") as record:
            record.add(strange)
        [found] = read_record(path, "toy")
        assert found.costs is not None
        assert found.decoding is not None
        assert found.accuracy["digits"] == 0.5
        assert math.isnan(found.accuracy["shapes"])
        assert (found.costs.union_parameters, found.costs.relative_macs) == (7, math.inf)
        assert found.decoding.realised == {"block0": ((1.0, 0.0), (0.0, 1.0))}
        assert found.decoding.proven is True

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)

    def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(self, path: Path) -> None:
        with Record(path, "toy") as record:
            with pytest.raises(ValueError, match=r"es-0-0.*object"):
                record.add(make(rungs=(measurement(0.5, {"digits": object()}),)))
            assert record.candidates() == []
            record.add(make())

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"vector": (0.1, 1.2, 0.3)}, r"es-0-0: use\[shapes\] must be in \[0, 1\], got 1.2"),
            ({"vector": (0.1, math.nan, 0.3)}, "got nan"),
            ({"vector": (0.1,)}, "1 entries and 3 different names"),
            ({"names": ("a", "a", "b")}, "3 entries and 2 different names"),
            ({"index": -1}, "index must be >= 0"),
            ({"strategy": "a/b"}, "hold '/'"),
            ({"stopped": True, "error": "boom"}, "only a candidate with a score can be stopped"),
        ],
    )
    def test_bad_candidates_are_refused(self, changes: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            make(**changes)

    def test_studies_with_similar_names_are_kept_apart(self, path: Path) -> None:
        with Record(path, "toy/es") as record:
            record.add(make())
        assert [c.id for c in read_record(path, "toy/es")] == ["es-0-0"]
        for other in ("toy", "es", "my/toy/es"):
            with pytest.raises(RecordError, match=rf"record of the study toy/es, not of {other}:"):
                read_record(path, other)
            with pytest.raises(RecordError, match="put the study's own record back"):
                Record(path, other)


class TestFailed:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"quality": None, "cost": None, "error": "killed"}, "killed"),
            ({"quality": 0.5, "cost": 0.25, "error": "late"}, "late"),
            ({"quality": math.nan}, "not finite: quality nan"),
            ({"cost": math.inf}, "cost inf"),
            ({"cost": None}, "cost None"),
        ],
    )
    def test_are_kept_as_failed_with_the_reason(
        self, path: Path, changes: dict[str, Any], reason: str
    ) -> None:
        candidate = make(**changes)
        assert candidate.failed
        with Record(path, "toy") as record:
            record.add(candidate)
        [found] = read_record(path, "toy")
        assert found.failed
        assert found.error is not None
        assert reason in found.error
        assert repr((found.quality, found.cost)) == repr((candidate.quality, candidate.cost))
        assert found.vector == candidate.vector
        [trial] = load_arm(path, "toy/es/0").trials
        assert trial.state == TrialState.FAIL


def test_plain_optuna_reads_it(path: Path) -> None:
    scores = [(0.5, 0.5), (0.9, 0.9), (0.4, 0.6), (0.2, 0.1)]
    with Record(path, "toy") as record:
        for index, (quality, cost) in enumerate(scores):
            record.add(make(index=index, quality=quality, cost=cost))
        record.add(make(index=4, quality=None, cost=None, error="killed"))
    arm = load_arm(path, "toy/es/0")
    assert {trial.user_attrs["index"] for trial in arm.best_trials} == {0, 1, 3}
    assert [direction.name for direction in arm.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert arm.metric_names == ["quality", "cost"]
    trial = arm.trials[1]
    assert trial.params == dict(zip(NAMES, make(index=1).vector, strict=True))
    assert trial.user_attrs["accuracy"] == {"digits": 0.5, "shapes": 0.25}
    assert trial.datetime_start is not None
    assert trial.datetime_start.timestamp() == pytest.approx(make(index=1).started, abs=1e-5)
    assert trial.duration is not None
    assert trial.duration.total_seconds() == pytest.approx(1.530865, abs=1e-5)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
    arm.sampler = sampler  # a sampler can go on from it
    assert set(arm.ask(dict(arm.trials[0].distributions)).params) == set(NAMES)


def test_trials_that_others_add_are_no_candidates(path: Path) -> None:
    with Record(path, "toy") as record:
        record.add(make())
    load_arm(path, "toy/es/0").enqueue_trial({NAMES[0]: 0.5})
    assert [candidate.id for candidate in read_record(path, "toy")] == ["es-0-0"]


def test_no_output(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    with Record(path, "toy") as record:
        record.add(make())
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity


class TestOneWriter:
    def test_the_same_candidate_twice_is_refused(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
            size = path.stat().st_size
            with pytest.raises(DuplicateCandidate, match="es-0-0"):
                record.add(make(quality=0.1))
            assert path.stat().st_size == size
        with Record(path, "toy") as record, pytest.raises(DuplicateCandidate, match="es-0-0"):
            record.add(make())

    def test_a_second_writer_is_refused_with_the_name_of_the_first(self, path: Path) -> None:
        with Record(path, "toy") as record:
            with pytest.raises(RecordError, match=rf"process {os.getpid()} on .*journal\.writer"):
                Record(path, "toy")
            result = in_process("Record(Path(sys.argv[1]), 'toy')", path, check=False)
            assert f"process {os.getpid()}" in result.stderr
            record.add(make())
        Record(path, "toy").close()

    def test_closed_means_closed(self, path: Path) -> None:
        record = Record(path, "toy")
        record.close()
        with pytest.raises(RecordError, match="closed"):
            record.add(make())

    def test_readers_see_whole_candidates_while_it_is_written(self, path: Path) -> None:
        code = "record = Record(Path(sys.argv[1]), 'toy')\n"
        code += "for i in range(300): record.add(make(index=i))"
        Record(path, "toy").close()
        writer = subprocess.Popen(process(code, path))
        counts = []
        while writer.poll() is None:
            found = read_record(path, "toy")
            assert found == [make(index=i) for i in range(len(found))]
            counts.append(len(found))
        assert writer.returncode == 0
        assert counts == sorted(counts)
        assert len(set(counts)) > 3
        assert len(read_record(path, "toy")) == 300


@pytest.mark.slow
def test_two_thousand_candidates(path: Path) -> None:
    names = tuple(f"entry[{i}]" for i in range(45))
    vector = tuple(np.linspace(0, 1, 45).tolist())
    with Record(path, "toy") as record:
        begin = time.monotonic()
        for index in range(2000):
            record.add(make(index=index, vector=vector, names=names))
        print(f"{2000 / (time.monotonic() - begin):.0f} candidates a second")
    begin = time.monotonic()
    assert len(read_record(path, "toy")) == 2000
    seconds = time.monotonic() - begin
    print(f"2,000 read in {seconds:.1f} s")
    assert seconds < 10
