from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from search.candidates import Rung
from search.config import (
    ConfigError,
    StudyConfig,
    differences,
    dump_config,
    load_config,
    parse_config,
)
from search.study import build_space, build_strategy
from tests.helpers import ROOT
from tests.helpers.studies import SMALL
from trainers.networks import BackboneError
from trainers.optim import learning_rate_at

TRUNK = {"dataset": {"name": "hues", "source": "toy"}}
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def raw(**changed: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "tiny",
        "tasks": [{"name": "digits", "source": "toy"}, {"name": "shapes", "source": "toy"}],
        "trunk": TRUNK,
        "strategies": {"random": {}},
    }
    return base | changed


def parsed(**changed: Any) -> StudyConfig:
    return parse_config(raw(**changed))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_are_valid_and_survive_a_round_trip(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    again = parse_config(yaml.safe_load(yaml.safe_dump(dump_config(config))))
    assert again == config
    assert differences(config, again) == []


def test_there_are_the_configs_the_readme_names() -> None:
    assert {p.stem for p in CONFIGS} >= {
        "quickstart",
        "mini_decathlon",
        "hub_decathlon",
        "decathlon",
        "decathlon_paper",
        "sharing_at_fixed_use",
    }


@pytest.mark.parametrize(
    "name", ["decathlon_paper", "sharing_at_fixed_use", "mini_decathlon_contest"]
)
def test_published_settings_have_the_papers_cost(name: str) -> None:
    """The mean share of divided channels; whoever searches for a smaller network counts MACs."""
    assert load_config(f"configs/{name}.yaml").objective.cost == "use"
    assert load_config("configs/quickstart.yaml").objective.cost == "macs"


def test_sharing_at_fixed_use_changes_nothing_but_overlaps() -> None:
    config = load_config("configs/sharing_at_fixed_use.yaml")
    space = build_space(config)
    strategies = {n: build_strategy(config, n, 0, space, {}) for n in config.strategies}
    vectors = {name: np.array(strategy.ask(4)) for name, strategy in strategies.items()}
    overlaps = np.delete(vectors["use_15"], space.use_dims, axis=1)
    assert len(np.unique(overlaps, axis=0)) == 4
    for name, vectors_N in vectors.items():
        np.testing.assert_array_equal(np.delete(vectors_N, space.use_dims, axis=1), overlaps)
        cost = [space.decode(vector).masks.mean_use() for vector in vectors_N]
        assert np.ptp(cost) == 0
        assert cost[0] == pytest.approx(config.strategies[name].settings.use[0], abs=0.01)


def test_the_decathlon_of_the_paper_is_as_printed() -> None:
    config = load_config("configs/decathlon_paper.yaml")
    assert len(config.tasks) == 9
    proxy = config.proxy
    assert (proxy.repeats, proxy.sgd.steps, proxy.sgd.batch_size) == (3, 3000, 4)
    assert [learning_rate_at(proxy.sgd, step) for step in (0, 1999, 2000)] == [1.0, 1.0, 0.1]
    es = config.strategies["es"].settings
    assert (es.directions, es.best, es.learning_rate, len(es.diagonal_l2)) == (16, 16, 0.1, 1)
    assert not es.per_task
    assert config.strategies["random"].settings.uniform
    assert config.space.use == (0.0, 1.0)
    assert (config.candidates, config.rungs) == (1000, ())
    assert (config.train.sgd.steps, config.train.sgd.batch_size) == (100_000, 64)
    rates = [learning_rate_at(config.train.sgd, step) for step in (0, 74_999, 75_000)]
    assert rates == [0.05, 0.05, pytest.approx(0.005)]


def test_the_decathlon_does_not_claim_to_be_the_papers() -> None:
    ours, paper = (load_config(f"configs/{name}.yaml") for name in ("decathlon", "decathlon_paper"))
    for name in ("tasks", "backbone", "trunk", "teachers", "train"):
        assert getattr(ours, name) == getattr(paper, name)
    text = (ROOT / "configs/decathlon.yaml").read_text()
    assert "not the paper's setting" in text.replace("\n# ", " ")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidate": 5}, r"^candidate: unknown key 'candidate'; did you mean 'candidates'\?"),
        ({"proxy": {"sdg": {}}}, r"^proxy\.sdg: unknown key 'sdg'; did you mean 'sgd'\?"),
        ({"proxy": {"sgd": {"stepz": 1}}}, r"^proxy\.sgd\.stepz: .*did you mean 'steps'"),
        ({"tasks": [{"name": "digits", "souce": "toy"}]}, r"^tasks\[0\]\.souce: .*'source'"),
        ({"strategies": {"rnadom": {}}}, "unknown strategy 'rnadom'; did you mean 'random'"),
        ({"strategies": {"es": {"direction": 1}}}, r"strategies\.es\.direction: .*'directions'"),
        ({"strategies": {}}, "strategies must name at least one"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"candidates": "many"}, "candidates must be a whole number, got 'many'"),
        ({"candidates": True}, "candidates must be a whole number, got true"),
        ({"seeds": [0, 0]}, "seeds must be one or more different numbers"),
        ({"seeds": 3}, "seeds must be a list, got 3"),
        ({"name": "a/b"}, "name must be a folder name"),
        ({"input_size": 0}, "^input_size must be at least 8 pixels, or null, got 0"),
        ({"backbone": {"modle": "resnet14"}}, r"^backbone\.modle: .*did you mean 'model'"),
        ({"backbone": {"family": "resnet14"}}, r"^backbone\.family: unknown key.*known: .*model"),
        ({"backbone": {"width": 0}}, r"^backbone\.width: unknown key 'width'"),
        ({"backbone": {"args": 3}}, r"^backbone\.args must be a mapping, got 3"),
        ({"backbone": {"partition": "stage3"}}, r"^backbone\.partition must be a list"),
        ({"backbone": {"trunk": "thawed"}}, "trunk must be one of frozen, train, got 'thawed'"),
        ({"space": {"use": [0.8, 0.2]}}, r"^space: .*0\.8"),
        ({"space": {"use": [0.5]}}, r"^space\.use must have 2 entries"),
        ({"compute": {"device": "tpu"}}, "auto, cpu, cuda"),
        ({"objective": {"cost": "price"}}, "cost must be one of use, parameters, macs, union"),
        ({"trunk": {}}, r"^trunk\.dataset is missing: .*backbone\.weights"),
        ({"trunk": {"checkpoint": "w.safetensors"}}, r"^trunk\.checkpoint: unknown key"),
        ({"space": {"multiple_of": 0}}, r"space\.multiple_of must be at least 1 channel, got 0"),
        ({"schedule": {"evaluators": 0}}, "evaluators must be at least 1"),
        ({"proxy": {"sgd": {"steps": 0}}}, r"^proxy\.sgd: steps must be at least 1, got 0"),
        ({"finish": {"seeds": 0}}, r"^finish: seeds must be at least 1"),
        ({"bracket": 1}, "bracket must be at least 2"),
        ({"rungs": [{"keep": 0.5}]}, r"^rungs\[0\]\.steps is missing"),
        ({"rungs": [{"steps": 9, "kepp": 1}]}, r"^rungs\[0\]\.kepp: .*did you mean 'keep'"),
        (
            {"rungs": [{"steps": 9, "keep": 1.5}]},
            r"^rungs\[0\]: keep must be .*at most 1, got 1\.5",
        ),
        (
            {"rungs": [{"steps": 20}, {"steps": 10}]},
            r"must ascend and be below proxy\.sgd\.steps \(3000\), got \[20, 10\]",
        ),
        ({"rungs": [{"steps": 20}, {"steps": 20}]}, r"must ascend .*got \[20, 20\]"),
        ({"rungs": [{"steps": 3000}]}, r"be below proxy\.sgd\.steps \(3000\), got \[3000\]"),
        ({"rungs": [{"steps": 1}]}, "at least the number of virtual networks, 2, .*got 1"),
        (
            {
                "space": {"kind": "unit_order", "levels": [0.5, 1]},
                "proxy": {"sgd": {"steps": 3}},
            },
            r"proxy\.sgd\.steps must be at least the number of virtual networks, 4, .*got 3",
        ),
        ({"space": {"kind": "nested"}}, r"^space: space\.kind must be one of .*got 'nested'"),
        ({"space": {"units": 2}}, r"^space: space\.units is a setting of unit_order and block"),
        (
            {"rungs": [{"steps": 9, "fidelity": "full"}, {"steps": 90}]},
            "only the last rung may be of fidelity full",
        ),
        (
            {"rungs": [{"steps": 9, "fidelity": "full", "keep": 0.5}]},
            r"keep must be 1, got 0\.5",
        ),
        (
            {"rungs": [{"steps": 3001}, {"steps": 9, "fidelity": "full"}]},
            r"be at most proxy\.sgd\.steps \(3000\), got \[3001, 9\]",
        ),
    ],
)
def test_bad_values_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(**changed)


def test_missing_keys_are_named() -> None:
    config = raw()
    del config["trunk"]
    with pytest.raises(ConfigError, match=r"^trunk is missing"):
        parse_config(config)
    config["backbone"] = {"weights": "resnet26.safetensors"}
    assert parse_config(config).pretraining.dataset is None, "it has weights to begin with"


def test_networks_come_with_trained_weights_or_get_some() -> None:
    """Without any, and without a dataset to pretrain on, there is nothing to distil."""
    for backbone in (
        {"model": "timm:resnet18", "args": {"pretrained": True}},
        {"model": "torchvision:resnet18", "args": {"weights": "DEFAULT"}},
        {"model": "transformers:google/vit-base-patch16-224"},
        {"model": "package.module:function"},
    ):
        assert parsed(backbone=backbone, trunk=None).trunk is None
    for backbone in (
        {"model": "resnet14"},
        {"model": "timm:resnet18"},
        {"model": "timm:resnet18", "args": {"pretrained": False}},
        {"model": "torchvision:resnet18"},
    ):
        with pytest.raises(ConfigError, match=r"^trunk is missing"):
            parsed(backbone=backbone, trunk=None)
        assert parsed(backbone=backbone).trunk is not None


def test_a_config_is_read_without_its_network() -> None:
    """What is wrong with a network is said where one is built; reading takes no library of any."""
    config = parsed(backbone={"model": "resnet50", "args": {"width": 0}})
    with pytest.raises(BackboneError, match=r"resnet50.*did you mean resnet"):
        _ = config.network
    width = parsed(backbone={"args": {"width": 0}})
    with pytest.raises(BackboneError, match=r"^backbone: .*width must be at least 1, got 0"):
        _ = width.network


def test_the_size_of_images() -> None:
    assert parsed().size == 32
    assert parsed(input_size=48).size == 48
    assert parsed(input_size=None).size == parsed(input_size=None).data.input_size == 32


def test_a_task_listed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="digits"):
        parsed(tasks=[{"name": "digits", "source": "toy"}] * 2)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"does not exist .*the project's own: .*quickstart\.yaml"
    ):
        load_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(bad)
    bad.write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(bad)


def test_configs_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/quickstart.yaml").name == "quickstart"


def test_overrides() -> None:
    config = load_config(
        "configs/quickstart.yaml",
        [
            "proxy.sgd.steps=7",
            "seeds=[1, 2]",
            "proxy.sgd.weight_decay=1e-4",
            "tasks.digits.limit=9",
        ],
    )
    assert config.proxy.sgd.steps == 7
    assert config.seeds == (1, 2)
    assert config.proxy.sgd.weight_decay == 1e-4
    assert next(t for t in config.tasks if t.name == "digits").limit == 9
    for bad, message in {
        "candidates": "needs key=value",
        "proxy.sdg.steps=1": "did you mean 'sgd'",
        "tasks.nothing.limit=1": "no entry 'nothing'",
        "candidates=[": "not valid YAML",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config("configs/quickstart.yaml", [bad])


def test_overrides_from_a_file(tmp_path: Path) -> None:
    """For values whose braces and spaces a remote shell would not leave alone."""
    file = tmp_path / "changes.yaml"
    file.write_text("proxy.sgd.steps: 20\nstrategies: {es: {turn: 2}}\ntasks.digits.limit: 9\n")
    given = ["candidates=3", f"@{file}", "proxy.sgd.steps=21"]
    config = load_config("configs/quickstart.yaml", given)
    assert (config.candidates, config.proxy.sgd.steps, config.tasks[0].limit) == (3, 21, 9)
    assert list(config.strategies) == ["es"]
    for text, words in (("- 3", "must map keys to values"), ("steps: 010", "010 can be misread")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config("configs/quickstart.yaml", [f"@{file}"])
    with pytest.raises(ConfigError, match=r"--set @gone.yaml: No such file.*/gone.yaml"):
        load_config("configs/quickstart.yaml", ["@gone.yaml"])


def test_a_strategy_may_go_by_another_name() -> None:
    config = parsed(strategies={"bold": {"kind": "es", "step_size": 0.3}, "es": None})
    assert config.strategies["bold"].kind == "es"
    assert config.strategies["bold"].settings.step_size == 0.3


def test_what_may_change_on_resume() -> None:
    old = parsed()
    more = {"candidates": 99, "schedule": {"evaluators": 2}, "finish": {"pick": "best"}}
    assert differences(old, parsed(**more)) == []
    changed = differences(old, parsed(proxy={"sgd": {"steps": 9}}, strategies={"es": {}}))
    assert any(line.startswith("proxy.sgd.steps: 3000 in the study, 9 now") for line in changed)
    assert any(line.startswith("strategies.es") for line in changed)


def test_the_ladder_ends_with_the_final_scoring() -> None:
    assert parsed().ladder == (Rung(steps=3000),)
    rungs: list[dict[str, Any]] = [{"steps": 300, "keep": 0.5}]
    assert parsed(rungs=rungs).ladder == (Rung(steps=300, keep=0.5), Rung(steps=3000))
    rungs += [{"steps": 3000, "keep": 0.25}, {"fidelity": "full", "steps": 50}]
    ladder = parsed(rungs=rungs).ladder
    assert [(r.fidelity, r.steps) for r in ladder] == [
        ("proxy", 300), ("proxy", 3000), ("full", 50),
    ]  # fmt: skip
    assert parse_config(dump_config(parsed(rungs=rungs))).ladder == ladder


def test_rungs_decide_scores_so_they_may_not_change() -> None:
    old = parsed(rungs=[{"steps": 300, "keep": 0.5}])
    other = {"train": {"temperature": 2.0, "sgd": {"steps": 7}}}
    assert differences(old, parsed(rungs=[{"steps": 300, "keep": 0.5}], **other)) == []
    for changed in ({"rungs": [{"steps": 300}]}, {"rungs": []}):
        assert differences(old, parsed(**changed))
    assert differences(old, parsed(rungs=[{"steps": 300, "keep": 0.5}], bracket=8)) == [
        "bracket: 16 in the study, 8 now"
    ]
    full = [{"fidelity": "full", "steps": 50}]
    # A short training scores with the settings of train, but for its steps.
    assert differences(parsed(rungs=full), parsed(rungs=full, **other)) == [
        "train.temperature: 1.0 in the study, 2.0 now"
    ]


def test_a_study_with_rungs_keeps_its_budget() -> None:
    rungs = [{"steps": 300, "keep": 0.5}]
    changed = differences(parsed(rungs=rungs, candidates=20), parsed(rungs=rungs, candidates=40))
    assert [line.split(":")[0] for line in changed] == ["candidates"]
    assert differences(parsed(candidates=20), parsed(candidates=40)) == []


def test_the_config_of_a_seed() -> None:
    shared = parsed(seeds=[0, 2])
    assert shared.foundations == "shared"
    assert shared.of_seed(2) is shared
    own = parsed(seeds=[0, 2], foundations="per_seed", trunk={**TRUNK, "seed": 5})
    found = own.of_seed(2)
    assert found.trunk is not None
    assert (found.trunk.seed, found.proxy.seed) == (7, 2)
    assert found.of_seed(2) == found, "it has one foundation"
    assert differences(own, parsed(seeds=[0], trunk={**TRUNK, "seed": 5})) == [
        "foundations: 'per_seed' in the study, 'shared' now"
    ]
    weights = {"weights": "resnet26.safetensors"}
    file = parsed(foundations="per_seed", backbone=weights, trunk=None).of_seed(1)
    assert file.trunk is not None
    assert file.trunk.seed == 1, "which seeds the teachers"
    assert file.trunk.dataset is None
    with pytest.raises(ConfigError, match="foundations must be one of shared, per_seed, got 'own'"):
        parsed(foundations="own")


def test_a_grid_stands_for_all_combinations() -> None:
    grid = {"grid": {"step_size": [0.05, 0.2], "turn": [2, 3]}, "directions": 5}
    config = parse_config(raw(strategies={"random": {}, "es": grid}))
    assert list(config.strategies) == ["random", "es.1", "es.2", "es.3", "es.4"]
    settings = [config.strategies[f"es.{number}"].settings for number in range(1, 5)]
    assert [(s.step_size, s.turn, s.directions) for s in settings] == [
        (0.05, 2, 5), (0.05, 3, 5), (0.2, 2, 5), (0.2, 3, 5),
    ]  # fmt: skip
    assert {entry.kind for entry in config.strategies.values()} == {"random", "es"}
    assert parse_config(dump_config(config)) == config


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"grid": {}}, "strategies.es.grid must map settings to lists"),
        ({"grid": {"turn": 3}}, "strategies.es.grid must map settings to lists"),
        ({"grid": {"turn": [2, 2]}}, "grid.turn must hold different values"),
        ({"grid": {"turn": []}}, "strategies.es.grid must map settings to lists"),
        ({"grid": {"turn": [2]}, "turn": 3}, "strategies.es: turn is set and in the grid, too"),
        ({"grid": {"trun": [2]}}, "strategies.es.1.trun: unknown key"),
    ],
)
def test_wrong_grids_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(raw(strategies={"es": entry}))


@pytest.mark.parametrize(
    "strategies",
    [
        {"es": {"grid": {"turn": [2, 3]}}, "es.1": {"kind": "random"}},
        {"es.2": {"kind": "random"}, "es": {"grid": {"turn": [2, 3]}}},
        {"1": {"kind": "es"}, 1: {"kind": "random"}},
    ],
)
def test_two_strategies_of_one_name_are_refused(strategies: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="is the name of two strategies"):
        parse_config(raw(strategies=strategies))


@pytest.mark.parametrize("order", [1, -1])
def test_a_recipe_and_what_is_set_beside_it(tmp_path: Path, order: int) -> None:
    """Whichever of the two comes first; what the file says of a recipe's settings gives way."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL | {"train": {"initial": "teachers", "ema": 0.5}}))
    given = ["train.distillation=0.9", "train.recipe=paper"][::order]
    train = load_config(file, given).train
    assert (train.initial, train.distillation, train.ema) == ("trunk", 0.9, 0.5)
    both = load_config(file, ["train={recipe: paper, evaluations: 4}"]).train
    assert (both.initial, both.evaluations) == ("trunk", 4)
    assert load_config(file).train.initial == "teachers"
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        load_config(file, ["train.recipe=papper"])
    whole = {"trunk": "train", "partition": ["stage*"]}
    with pytest.raises(ConfigError, match="there is no frozen trunk"):
        load_config(file, ["train.thaw=0.5", f"backbone={SMALL['backbone'] | whole}"])
