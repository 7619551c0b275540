"""The stored features of a study's tasks: computed once, then read from where they are kept."""

import functools
import os
import shutil
from pathlib import Path

from search.config import StudyConfig
from search.study.basis import Check, accept, features_basis
from search.study.foundation import Foundation, Run
from search.study.shelf import Say, Shelf
from trainers.data import Task
from trainers.proxy import (
    FeatureCache,
    TaskFeatures,
    build_cache,
    compute_features,
    feature_bytes,
    features_digest,
    load_features,
    save_features,
)

# Of the memory that is free: Ray's object store takes a third of all memory by default, and the
# evaluators need some, too.
SHARE_OF_MEMORY = 0.5


def feature_cache(
    config: StudyConfig,
    base: Foundation,
    run: Run,
    say: Say,
    more: int = 0,
    check: Check = accept,
) -> FeatureCache:
    """Compute or load the cached features of every task.

    Args:
        config: The study; that of a seed where seeds have foundations of their own.
        base: Tasks and teachers.
        run: Where the forward passes run.
        say: Called with one line per thing that was done.
        more: How many caches as large as this are to be held beside it and are not there yet.
        check: Called with digests of the features.
    """
    needs = {name: _feature_bytes(config, task) for name, task in base.tasks.items()}
    mapped = _say_size(config, sum(needs.values()), more, say)
    shelf = Shelf.of(config)
    digests = {
        name: features_digest(
            base.teachers[name],
            task,
            images=config.proxy.images,
            seed=config.proxy.seed,
            precision=config.compute.precision,
        )
        for name, task in base.tasks.items()
    }
    files = {name: f"features-{name}-{digest[:20]}.safetensors" for name, digest in digests.items()}
    reads = {
        name: functools.partial(load_features, digest=digest, mapped=mapped)
        for name, digest in digests.items()
    }
    missing = sum(needs[name] for name in needs if not shelf.has(files[name]))
    _require_space(shelf.own, missing * (1 + more))
    features: dict[str, TaskFeatures] = {}
    for name, file in files.items():
        found = shelf.find(file, reads[name], say)
        if found is not None:
            features[name] = found
    computed = run(
        compute_features,
        {
            name: {
                "config": config.backbone,
                "teacher": base.teachers[name],
                "task": task,
                "images": config.proxy.images,
                "seed": config.proxy.seed,
                "compute": config.compute,
            }
            for name, task in base.tasks.items()
            if name not in features
        },
    )
    for name, result in computed:
        write = functools.partial(save_features, result, digest=digests[name])
        # Read back even what was just computed, so that a resumed study scores with the same bits.
        features[name] = reads[name](shelf.keep(files[name], write))
    ordered = {name: features[name] for name in base.tasks}
    cache = build_cache(config.backbone, base.trunk, ordered, input_size=config.size)
    check(features_basis(cache, config.proxy.seed))
    return cache


def _say_size(config: StudyConfig, need: int, more: int, say: Say) -> bool:
    """Say how many bytes features need, with `more` times as many to come; whether to map them."""
    mapped = need * (1 + more) > SHARE_OF_MEMORY * _free_memory()
    text = f"feature cache: {need / 2**20:.0f} MiB"
    if mapped:
        text += ", with those of other seeds" if more else ""
        text += (
            f", more than half of the free memory: read from {Shelf.of(config).own}, which every "
            "node must see"
        )
    say(text)
    return mapped


def _feature_bytes(config: StudyConfig, task: Task) -> int:
    return feature_bytes(
        config.network,
        train_images=min(config.proxy.images, len(task.splits["train"])),
        validation_images=len(task.splits["validation"]),
    )


def _free_memory() -> int:
    """Bytes of memory that can be had; all of it where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _require_space(folder: Path, need: int) -> None:
    """Refuse a feature cache that the disk has no room for, before any of it is computed."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"the feature cache needs {need / 2**30:.1f} GiB more in {folder}, which has "
            f"{free / 2**30:.1f} GiB left; lower proxy.images, or name another folder as cache"
        )
