"""Versions of what outlasts a run: written, and any other refused in words."""

import json
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from partitioning import EXPORT, RECORD, STUDY, TRAINING, FormatError, write_json
from search.candidates import Candidate
from search.config import dump_config, load_config
from search.record import Record, RecordError, read_record
from search.record.lines import sealed
from search.study import Foundation, Study, StudyError, run_here
from search.study.basis import foundation_basis
from search.study.training import ToTrain, train_candidates
from search.study.training_files import decided_by, settings_folder
from tests.helpers.small_networks import candidate
from tests.helpers.studies import simulated
from trainers.export import read_export
from trainers.teachers import Trained, store

SEAL = ("arm", "line", "checksum")


def test_formats_differ_in_name() -> None:
    assert len({found.name for found in (EXPORT, RECORD, STUDY, TRAINING)}) == 4
    for found in (EXPORT, RECORD, STUDY, TRAINING):
        found.check(found.version, "here")
        for other in (found.version + 1, str(found.version), True, None):
            with pytest.raises(FormatError, match=f"^here holds {found.what} .* or {found.mend}$"):
                found.check(other, "here")


def test_a_study_of_another_version(tmp_path: Path) -> None:
    study = Study.create(simulated(output=str(tmp_path)))
    path = study.folder / "config.yaml"
    kept = yaml.safe_load(path.read_text())
    # The config that a study keeps is one that can be searched again.
    places = {"output": str(tmp_path), "cache": None, "data_root": str(Path.cwd())}
    assert dump_config(load_config(path)) == dump_config(study.config) | places
    path.write_text(yaml.safe_dump(kept | {"version": 2}))
    for use in (Study, load_config):
        with pytest.raises(
            (StudyError, FormatError), match=r"config.yaml holds a study of version 2"
        ):
            use(study.folder if use is Study else path)
    with pytest.raises(StudyError, match="of version 2, but this Apportion reads version 3"):
        Study.create(simulated(output=str(tmp_path)), resume=True)
    path.write_text(yaml.safe_dump({k: v for k, v in kept.items() if k not in STUDY.header}))
    with pytest.raises(StudyError, match="a study made before versions were kept"):
        Study(study.folder)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.journal"
    with Record(path, "s") as opened:
        opened.add(
            Candidate(
                strategy="random", seed=0, index=0, vector=(0.5,), names=("use[a]",),
                quality=0.5, cost=0.5,
            )
        )  # fmt: skip
    return path


def test_a_record_carries_its_version_as_optuna_does(record: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(record)))
    study = optuna.load_study(study_name="s/random/0", storage=storage)
    assert study.user_attrs == {"apportion-record": 2}
    assert len(read_record(record, "s")) == 1


def test_a_record_of_another_version(record: Path) -> None:
    entries = [json.loads(line) for line in record.read_text().splitlines()]
    (entry,) = (entry for entry in entries if "apportion-record" in entry.get("user_attr", {}))
    # Lines of version 1 were neither numbered nor sealed; those of a later one may be.
    for version, seals, words in (
        (1, False, "a record of version 1"),
        (3, True, "a record of version 3"),
        (None, False, "made before versions were kept"),
    ):
        entry["user_attr"] = {"apportion-record": version}
        kept = [each for each in entries if version or each is not entry]
        plain = [{k: v for k, v in each.items() if k not in SEAL} for each in kept]
        numbered = [each | {"arm": "s/random/0", "line": n} for n, each in enumerate(plain)]
        written = [sealed(each) for each in numbered] if seals else plain
        lines = [json.dumps(each, separators=(",", ":")) + "\n" for each in written]
        record.write_text("".join(lines))
        with pytest.raises(RecordError, match=f"{record} holds .*{words}.* move it away"):
            read_record(record, "s")
        with pytest.raises(RecordError, match=words):
            Record(record, "s")


def test_a_crash_before_the_version_was_written(record: Path) -> None:
    lines = record.read_text().splitlines(keepends=True)
    record.write_text(lines[0])  # Optuna's study alone
    with Record(record, "s") as opened:
        assert opened.candidates() == []
        opened.add(
            Candidate(
                strategy="random", seed=0, index=0, vector=(0.5,), names=("use[a]",),
                quality=0.5, cost=0.5,
            )
        )  # fmt: skip
    assert len(read_record(record, "s")) == 1


def test_a_training_of_another_version(tmp_path: Path) -> None:
    settings = simulated(output=str(tmp_path))
    saved = {"accuracy": {"test": {"a": 0.5}}, "weights": "w", "points": []}
    weights = Trained(state={}, accuracy=0.5, digest="w")
    ground = settings.pretraining.seed
    saved |= decided_by(settings, candidate(0), foundation_basis({}, weights, {}, ground))
    own = settings_folder(tmp_path, "random-0-0", settings)
    own.mkdir(parents=True)
    store(weights, own / "seed0.safetensors")
    base = Foundation(tasks={}, trunk=weights, teachers={})

    def train(header: dict[str, str | int]) -> None:
        write_json(own / "seed0.json", header | saved)
        wanted = ToTrain(
            candidate="random-0-0",
            masks=candidate(0),
            config=settings,
            how=settings,
            seeds=[0],
            base=base,
        )
        (trained,) = train_candidates([wanted], tmp_path, say=print, run=run_here)
        assert trained.accuracy == {0: saved["accuracy"]}

    train(TRAINING.header)
    with pytest.raises(FormatError, match=r"seed0.json holds a training of version 2.*delete it"):
        train(TRAINING.header | {"version": 2})
    with pytest.raises(FormatError, match="a training made before versions were kept"):
        train({})


def test_an_export_of_another_version(tmp_path: Path) -> None:
    write_json(tmp_path / "network.json", EXPORT.header | {"version": 1})
    with pytest.raises(FormatError, match=r"an exported network of version 1.*export it again"):
        read_export(tmp_path)
