"""docs/config.md is what the dataclasses say, complete, and its examples are valid."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from search.config import StudyConfig, load_config, parse_config
from search.config.reference import EXAMPLES, PAGE, descriptions, reference
from search.strategies import STRATEGIES
from trainers.methods import METHODS

TINY = {
    "name": "tiny",
    "tasks": [{"name": "digits", "source": "toy"}, {"name": "shapes", "source": "toy"}],
    "trunk": {"dataset": {"name": "hues", "source": "toy"}},
    "strategies": {"random": {}},
}

OF_METHODS = {
    "name": "tiny",
    "tasks": TINY["tasks"],
    "backbone": {"model": "resnet14", "partition": ["stage*"], "stream": True, "trunk": "train"},
}


def keys(cls: type[Any], path: str = "") -> Iterator[str]:
    """The dotted keys of a config and all its sections, strategies' and methods' settings aside."""
    for name, hint in get_type_hints(cls).items():
        inner = [h for h in (hint, *get_args(hint)) if dataclasses.is_dataclass(h)]
        yield path + name
        for part in inner:
            yield from keys(part, f"{path}{name}.")  # type: ignore[arg-type]


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text() == reference(), "docs/config.md is stale: make docs"


def test_every_key_is_on_the_page() -> None:
    page = reference()
    found = [key for key in keys(StudyConfig) if not key.startswith(("strategies.", "methods."))]
    assert len(found) > 100
    for key in found:
        section, _, last = key.rpartition(".")
        told = last if section.endswith("sgd") else key.replace("trunk.dataset.", "tasks.")
        assert f"\n| `{told}` | " in page, key


@pytest.mark.parametrize("name", [*STRATEGIES, *METHODS])
def test_every_setting_of_a_strategy_or_method_is_on_the_page(name: str) -> None:
    part = re.search(rf"^### `{name}`\n(.*?)(?=^###|\Z)", reference(), re.DOTALL | re.MULTILINE)
    assert part
    told = re.findall(r"^\| `(\w+)` \| .+ \| .+ \| .* \| \S.* \|$", part[1], re.MULTILINE)
    settings = (STRATEGIES.get(name) or METHODS[name]).settings
    assert told == [field.name for field in dataclasses.fields(settings)]


def test_a_field_without_a_description_is_refused() -> None:
    @dataclasses.dataclass
    class Silent:
        """Settings of something.

        Attributes:
            told: What it does.
        """

        told: int = 0
        untold: int = 0

    with pytest.raises(ValueError, match=r"field of Silent must be described .* but untold is not"):
        descriptions(Silent)


@pytest.mark.parametrize("section", EXAMPLES)
def test_examples_are_parts_of_a_config(section: str) -> None:
    part = yaml.safe_load(EXAMPLES[section])
    assert section.split(".")[0] in ("", "sgd", *part)
    base = TINY if section != "methods" else OF_METHODS
    parse_config(base | part)


def test_a_block_of_sgd_replaces_the_recipe_as_the_page_says() -> None:
    recipe = parse_config(TINY).proxy.sgd
    assert (recipe.learning_rate, recipe.schedule) == (1.0, "step")
    block = load_config("configs/quickstart.yaml", ["proxy.sgd={steps: 300}"]).proxy.sgd
    assert (block.steps, block.learning_rate, block.schedule) == (300, 0.05, "cosine")
