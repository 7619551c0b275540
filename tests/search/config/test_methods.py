"""The `methods` of a config: read, refused, written back."""

import re
from typing import Any

import pytest

from search.config import ConfigError, differences, dump_config, load_config, parse_config
from search.study.method_plans import build_plan
from tests.helpers import ROOT
from trainers.methods import METHODS

SMALL: dict[str, Any] = {
    "name": "small",
    "tasks": [{"name": "digits", "source": "toy"}, {"name": "glyphs", "source": "toy"}],
    "backbone": {"model": "resnet14", "partition": ["stage*"], "stream": True, "trunk": "train"},
    "methods": {"dvn": {}, "random": {"kind": "dvn", "order": "random"}},
}


TRUNK: dict[str, Any] = {"dataset": {"name": "hues", "source": "toy"}}


def refused(**changed: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(SMALL | changed)
    return str(caught.value)


def test_a_study_of_methods_needs_neither_trunk_nor_strategies() -> None:
    config = parse_config(SMALL)
    assert [entry.kind for entry in config.methods.values()] == ["dvn", "dvn"]
    assert parse_config(dump_config(config)) == config


def test_every_method_has_settings_with_defaults_and_a_summary() -> None:
    config = parse_config(SMALL | {"methods": {name: {} for name in METHODS}})
    assert config.methods.keys() == METHODS.keys()
    assert all(entry.summary and len(entry.summary) < 90 for entry in METHODS.values())


def test_a_grid_stands_for_all_combinations() -> None:
    config = parse_config(SMALL | {"methods": {"dvn": {"grid": {"order": ["rule", "random"]}}}})
    assert [(n, e.settings.order) for n, e in config.methods.items()] == [
        ("dvn.1", "rule"),
        ("dvn.2", "random"),
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"methods": {"packnett": {}}}, "unknown method 'packnett'.*did you mean 'packnet'"),
        ({"methods": {"dvn": {"unit": 2}}}, r"methods\.dvn\.unit: unknown key"),
        ({"methods": {"dvn": {"order": "best"}}}, r"methods\.dvn: order must be one of rule"),
        ({"methods": {"dvn": {"units": 3, "shares": [0.5, 0.5]}}}, "for each of 3 units, got 2"),
        ({"methods": {"dvn": {"shares": [0.5, 0.2]}}}, "shares above 0, 1 in all"),
        ({"methods": {"a-b": {"kind": "dvn"}}}, "a method's name must be up to 60 letters"),
        ({"methods": {"..": {"kind": "dvn"}}}, r"the first a letter or digit .*, got '\.\.'"),
        ({"methods": {"a" * 61: {"kind": "dvn"}}}, "a method's name must be up to 60 letters"),
        ({"methods": {}}, "strategies must name at least one of .*or methods at least one of"),
        ({"strategies": {"random": {}}}, "methods and strategies are two studies"),
        ({"backbone": {"model": "resnet14"}}, r"backbone\.trunk must be train, got frozen"),
        (
            {"tasks": [{"name": "digits", "source": "toy", "size": 4}]},
            "size must be at least 8",
        ),
        ({"finish": {}}, "finish must be left out where methods are trained"),
        (
            {"trunk": {"dataset": {"name": "hues", "source": "toy"}}},
            "trunk must be left out where methods are trained",
        ),
    ],
)
def test_refused(changed: dict[str, Any], said: str) -> None:
    assert re.search(said, refused(**changed), re.DOTALL)


def test_images_of_several_sizes_are_for_methods() -> None:
    sized = [{"name": "digits", "source": "toy", "size": 64}, {"name": "glyphs", "source": "toy"}]
    config = parse_config(SMALL | {"tasks": sized, "methods": {"shared": {}, "lwf": {}}})
    assert build_plan(config, "shared", 0).parts
    with pytest.raises(ConfigError, match=r"methods\.lwf: .* must have images of one size"):
        build_plan(config, "lwf", 0)
    sized[0]["size"] = 40
    config = parse_config(SMALL | {"tasks": sized})
    with pytest.raises(ConfigError, match="images of 40 pixels as large as those of 32 pixels"):
        build_plan(config, "dvn", 0)
    with pytest.raises(ConfigError, match="task 'digits': size is for methods"):
        parse_config(
            {"name": "searched", "tasks": sized, "strategies": {"random": {}}, "trunk": TRUNK}
        )


def test_methods_of_one_config_do_not_bind_another() -> None:
    """Each stands for itself; what both have must be the same, and so must the training."""
    config = parse_config(SMALL)
    more = parse_config(SMALL | {"methods": {"dvn": {}, "single": {}}})
    assert differences(config, more) == []
    other = parse_config(SMALL | {"methods": {"dvn": {"units": 4}}})
    assert differences(config, other) == ["methods.dvn.units: None in the study, 4 now"]
    longer = parse_config(SMALL | {"train": {"sgd": {"steps": 7}}})
    assert any(line.startswith("train.sgd.steps") for line in differences(config, longer))


def test_scenarios_are_sound() -> None:
    """With as many units and levels as their papers say."""
    names = sorted(path.name for path in (ROOT / "configs/virtual").glob("*.yaml"))
    assert {"j1.yaml", "j2.yaml", "j3.yaml", "h1.yaml", "s1.yaml", "s2.yaml"} < set(names)
    for name in names:
        config = load_config(ROOT / "configs/virtual" / name)
        small = name.startswith("small_")
        assert config.name == name.removesuffix(".yaml") if small else f"virtual_{name}"
        assert all((task.source == "hub") != small for task in config.tasks)
