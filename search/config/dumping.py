"""A study's config as plain YAML values, and what two configs differ in."""

from collections.abc import Mapping
from typing import Any

import yaml

from search.config.build import ConfigError, plain
from search.config.reading import read_yaml
from search.config.study_config import StudyConfig

#: Sections that may change when a study is resumed: none of them decides a proposal or a score,
#: but for `train` where the last rung trains with it (its steps are the rung's own) or methods do,
#: and for the budgets where there are rungs. Where data lies does not matter: the record knows what
#: it is.
MUTABLE = {
    "output", "cache", "data_root", "candidates", "device_seconds", "schedule", "tracking",
    "finish", "train", "calibration", "seeds",
}  # fmt: skip


#: The key of the tasks' names in their order, which decides as much as anything of them.
ORDER = "tasks.order"


def dump_config(config: StudyConfig) -> dict[str, Any]:
    """The resolved config as plain YAML values; `parse_config` reads it back."""
    raw = plain(config)
    assert isinstance(raw, dict)
    for section in ("strategies", "methods"):
        raw[section] = {
            name: {"kind": entry["kind"], **entry["settings"]}
            for name, entry in raw[section].items()
        }
    return raw


def yaml_text(values: Mapping[str, Any]) -> str:
    """YAML that `read_yaml` reads back: text that could be misread is in quotes."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        is_plain = read_yaml(text, "") == text
    except ConfigError:
        is_plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else "'")


_Dumper.add_representer(str, _represent_text)


def decisive(config: StudyConfig) -> dict[str, Any]:
    """Settings that decide a study's proposals or scores, by dotted key."""
    flat = _flat(dump_config(config))
    return {key: value for key, value in flat.items() if _decides(key, config)}


def differences(old: StudyConfig, new: StudyConfig) -> list[str]:
    """Readable differences that forbid to resume one config's study with the other."""
    a, b = _flat(dump_config(old)), _flat(dump_config(new))
    found = dict.fromkeys(
        _difference(key, a, b)
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) and _decides(key, old) and not _of_one(key, old, new)
    )
    return list(found)


def _difference(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """One line; the same for all keys of a task that one of two configs does not have."""
    names = [set(each.get(ORDER, ())) for each in (a, b)]
    section, _, rest = key.partition(".")
    for name in names[0] ^ names[1] if section == "tasks" else ():
        if rest.startswith(f"{name}."):
            return f"task {name}: only {'in the study' if name in names[0] else 'now'}"
    return f"{key}: {a.get(key, 'absent')!r} in the study, {b.get(key, 'absent')!r} now"


def _of_one(key: str, old: StudyConfig, new: StudyConfig) -> bool:
    """Whether a key is of a method that only one of two configs has: each stands for itself."""
    section, _, rest = key.partition(".")
    name = rest.rpartition(".")[0]
    return section == "methods" and (name in old.methods) != (name in new.methods)


def _decides(key: str, config: StudyConfig) -> bool:
    if config.methods and key.startswith("train.sgd."):
        return True
    immutable = {"train"} if config.ladder[-1].fidelity == "full" else set()
    if config.rungs:  # the last bracket was closed where the budget ended
        immutable |= {"candidates", "device_seconds"}
    return (
        key.split(".")[0] not in MUTABLE - immutable
        and key not in ("compute.threads", "train.sgd.steps", "backbone.weights")
        and not key.endswith(".path")
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        named = {str(v.get("name", i)): v for i, v in enumerate(value)}
        items = named.items()
        flat[f"{prefix}.order"] = list(named)
    else:
        return {prefix: value}
    for key, entry in items:
        flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat
