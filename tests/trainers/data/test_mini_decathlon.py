"""The mini-Decathlon, where it is at hand."""

import os
from pathlib import Path

import pytest

from tests.helpers import ROOT
from trainers.data import DataConfig, TaskConfig, check_tasks, load_task

DECATHLON = Path(os.environ.get("APPORTION_DATA", ROOT / "data"))
EXPECTED = {  # training, validation and test images, classes
    "cifar10": (4000, 1000, 1000, 10),
    "gtsrb": (3000, 800, 1000, 43),
    "chars74k36": (3000, 700, 800, 36),
    "sign_digits": (1422, 290, 350, 10),
    "fashion_mnist": (5000, 1000, 1000, 10),
    "omniglot100": (1400, 300, 300, 100),
    "dtd10": (770, 190, 240, 10),
    "trashnet6": (1613, 403, 505, 6),
    "kannada_mnist": (4000, 1000, 1000, 10),
}
needs_decathlon = pytest.mark.skipif(
    not DECATHLON.is_dir(), reason=f"no mini-Decathlon in {DECATHLON}; set APPORTION_DATA"
)


@needs_decathlon
def test_mini_decathlon_passes_the_check() -> None:
    tasks = tuple(TaskConfig(name=name) for name in EXPECTED)
    check_tasks(DataConfig(tasks=tasks, root=str(DECATHLON)))


@needs_decathlon
@pytest.mark.parametrize("name", ["dtd10", "omniglot100"])
def test_mini_decathlon_loads(name: str) -> None:
    task = load_task(
        TaskConfig(name=name), DataConfig(tasks=(TaskConfig(name=name),), root=str(DECATHLON))
    )
    sizes = tuple(len(task.splits[split]) for split in ("train", "validation", "test"))
    assert (*sizes, task.num_classes) == EXPECTED[name]
    for split in task.splits.values():
        assert split.images.shape[1:] == (3, 32, 32)
        assert len(split.labels.unique()) == task.num_classes
    images = task.splits["train"].images
    assert (images.float().std(dim=(1, 2, 3)) > 1).float().mean() > 0.99  # pictures, not blanks
    is_gray = bool((images[:, 0] == images[:, 1]).all())
    assert is_gray == (name == "omniglot100")
    train, test = (
        {image.numpy().tobytes() for image in task.splits[split].images}
        for split in ("train", "test")
    )
    assert not train & test


@needs_decathlon
def test_a_size_of_ones_own_and_the_hub_reader_agree_on_real_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    fields = {"name": "dtd10", "limit": 50, "test": None}
    tasks = [TaskConfig(**fields, source=source) for source in ("parquet", "hub")]
    parquet, hub = (
        load_task(task, DataConfig(tasks=(task,), root=str(DECATHLON), input_size=20))
        for task in tasks
    )
    assert parquet.splits["train"].images.shape == (50, 3, 20, 20)
    assert parquet.fingerprint() == hub.fingerprint()
