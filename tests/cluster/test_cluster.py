"""The shipped cluster.yaml on three hosts: from nothing to a study, and the loss of machines."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.commands.search import search
from search.config import StudyConfig, dump_config
from search.record import read_record
from search.study import Study
from tests.cluster.hosts import Host, at_hub, hosts, missing, run, ssh
from tests.helpers import ROOT
from tests.helpers.studies import EXPECTED, TINY, accounted, mirrored, quiet, tiny, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    # Ray starts and ends processes of its own in this one.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.timeout(1200),
]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
APPORTION = (sys.executable, "-m", "apportion")
JOB = ("env", "RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265", *RAY, "job")
#: What ends a host's evaluators without a word.
KILL = "pkill -KILL -f 'ray::[E]valuator'"


class Cluster:
    """Hosts, and the file that `ray up` is given."""

    def __init__(self, folder: Path, machines: Sequence[Host]) -> None:
        self.folder, self.hosts = folder, list(machines)
        self.head, *workers = machines
        text = (ROOT / "cluster.yaml").read_text()
        for before, after in (
            ("head_ip: 192.0.2.10", f"head_ip: {self.head.address}"),
            ("[192.0.2.11, 192.0.2.12]", f"[{', '.join(host.address for host in workers)}]"),
            ("ubuntu", "root"),
            ("~/.ssh/id_ed25519", str(folder / "key")),
        ):
            assert text.count(before) == 1
            text = text.replace(before, after)
        self.file = folder / "cluster.yaml"
        self.file.write_text(text)

    def ray(self, verb: str, *words: str) -> str:
        """What `ray VERB cluster.yaml WORDS` prints."""
        done = run([*RAY, verb, str(self.file), *words], check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(
        self, config: StudyConfig, *options: str, resume: bool = False
    ) -> "subprocess.Popen[str]":
        """Start a search as the README does."""
        script = str(ROOT / "search" / "run.py")
        command = [*RAY, "submit", str(self.file), *options, script]
        return begin([*command, "--", "--config", write(self, config), *["--resume"] * resume])

    def wait_for_all(self) -> None:
        """Until every host has joined."""
        count = "print(sum(node['Alive'] for node in ray.nodes()))"
        script = f"import ray; ray.init(log_to_driver=False); {count}"
        python = f'~/apportion-env/bin/python -c "{script}"'
        wait_for(lambda: ssh(self.head, python, check=False).stdout[-2:] == f"{len(self.hosts)}\n")


def begin(command: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a command at the hub."""
    return subprocess.Popen(
        at_hub(command),
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("hosts")
    with hosts(3, folder) as machines:
        yield Cluster(folder, machines)


@pytest.fixture(scope="module")
def started(cluster: Cluster) -> Cluster:
    """After `ray up`, when all have joined."""
    cluster.ray("up", "-y")
    cluster.wait_for_all()
    return cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """What a search on one machine finds."""
    return search(study(tmp_path_factory.mktemp("undisturbed"), "undisturbed"), console=quiet())


def study(output: Path, name: str) -> StudyConfig:
    """Of half a minute, so that what happens to it happens in its middle."""
    sgd = TINY["proxy"]["sgd"] | {"steps": 100}
    settings = {"proxy": TINY["proxy"] | {"sgd": sgd}, "compute": {"device": "cpu", "threads": 1}}
    return tiny(output, name=name, **settings)


def shared(cluster: Cluster, config: StudyConfig) -> StudyConfig:
    """A study of the hosts as it is found from outside."""
    return replace(config, output=str(cluster.folder / "shared" / "studies"))


def write(cluster: Cluster, config: StudyConfig) -> str:
    """The path of a config's file on the hosts."""
    file = f"{config.name}.yaml"
    (cluster.folder / "shared" / file).write_text(yaml.safe_dump(dump_config(config)))
    return f"/mnt/shared/{file}"


def scored(config: StudyConfig) -> int:
    """How many candidates are in a study's record."""
    path = config.folder / "record.journal"
    return len(read_record(path, config.name)) if path.exists() else 0


def scorers(config: StudyConfig) -> set[str]:
    """Addresses of the machines that have scored candidates of a study."""
    path = config.folder / "record.journal"
    if not path.exists():
        return set()
    return {str(c.evaluator).partition(":")[0] for c in read_record(path, config.name)}


def same(found: Study, undisturbed: Study) -> None:
    """The candidates and scores of the undisturbed run, nothing lost and nothing doubled."""
    assert accounted(found) == EXPECTED
    assert mirrored(found) == sorted(c.id for c in undisturbed.candidates())
    assert scores(found) == scores(undisturbed)


def scores(study: Study) -> dict[str, object]:
    """What a study has of each candidate."""
    return {c.id: (c.vector, c.accuracy, c.error) for c in study.candidates()}


def test_what_is_missing(cluster: Cluster) -> None:
    config = write(cluster, study(Path("/mnt/shared/studies"), "checked"))
    own = write(cluster, study(Path("studies"), "own"))
    local = {path: str(cluster.folder / "shared" / Path(path).name) for path in (config, own)}
    check = [*APPORTION, "cluster", "check", str(cluster.file), "--config"]
    done = run([*check, local[config]], check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "nothing is missing" in done.stdout
    done = run([*check, local[own]], check=False, cwd=ROOT)
    assert done.returncode == 1
    for host in cluster.hosts[1:]:
        assert f"missing {host.address}: studies as {cluster.head.address} has it" in done.stdout


def go_through(
    cluster: Cluster, accident: Callable[[Host], None], host: Host, config: StudyConfig
) -> str:
    """Have an accident happen to a host that scores candidates of a search; what it then prints."""
    process = cluster.submit(config)
    seen = shared(cluster, config)
    if config.output == "studies":
        seen = replace(config, output=str(cluster.head.folder / "home" / "studies"))
    wait_for(lambda: {cluster.head.address, host.address} <= scorers(seen), within=300)
    accident(host)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@contextmanager
def jobs(cluster: Cluster) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """Run `ray job` while `ray dashboard` forwards its port."""
    dashboard = begin([*RAY, "dashboard", str(cluster.file)])

    def job(verb: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return run([*JOB, verb, *words], check=False)

    try:
        wait_for(lambda: job("list").returncode == 0)
        yield job
    finally:
        os.killpg(dashboard.pid, signal.SIGTERM)
        dashboard.wait()


def test_a_job_is_left_alone(started: Cluster, undisturbed: Study) -> None:
    """Its terminal is closed, it is stopped, and goes on."""
    config = study(Path("/mnt/shared/studies"), "job")
    seen = shared(started, config)
    search = ["--", "apportion", "search", write(started, config)]
    with jobs(started) as job:
        terminal = begin([*JOB, "submit", "--submission-id", "first", *search])
        wait_for(lambda: scored(seen) > 0, within=300)
        terminal.kill()
        terminal.communicate()
        before = scored(seen)
        wait_for(lambda: scored(seen) > before)
        assert job("stop", "first").returncode == 0
        logs = job("logs", "first")
        assert "ended by SIGTERM; what was scored is in the record" in logs.stdout + logs.stderr
        assert scored(seen) < len(undisturbed.candidates())
        again = job("submit", *search, "--resume")
        assert again.returncode == 0, again.stdout + again.stderr
    same(Study(seen.folder), undisturbed)


def test_evaluators_die_and_a_disk_is_full(started: Cluster, undisturbed: Study) -> None:
    """Where the disk is full none can start again; elsewhere they die at random points."""
    *_, other, full = started.hosts
    rng = random.Random(0)

    def accident(host: Host) -> None:
        said = ssh(host, f"cat /dev/zero > /tmp/ray/full; {KILL}", check=False).stderr
        assert "No space left" in said
        for _ in range(5):
            ssh(other, KILL, check=False)
            time.sleep(rng.uniform(0.0, 2.0))

    config = study(Path("/mnt/shared/studies"), "full")
    assert "is lost" in go_through(started, accident, full, config)
    ssh(full, "rm /tmp/ray/full")
    same(Study(shared(started, config).folder), undisturbed)


def test_the_head_starts_again(started: Cluster, undisturbed: Study) -> None:
    """Ray ends the driver without a word, so another process has it."""
    config = study(Path("/mnt/shared/studies"), "restarted")
    seen = shared(started, config)
    process = started.submit(config)
    wait_for(lambda: scored(seen) > 0, within=300)
    ssh(started.head, "bash -lc 'ray stop'")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Ray ended it" in output
    assert "go on with --resume" in output
    assert scored(seen) < len(undisturbed.candidates())
    started.ray("up", "-y", "--restart-only")
    started.wait_for_all()
    again = started.submit(config, resume=True)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    same(Study(seen.folder), undisturbed)


def test_a_worker_dies(started: Cluster, undisturbed: Study, tmp_path: Path) -> None:
    """The study lies on the head alone, and is fetched as the docs say."""
    go_through(started, Host.kill, started.hosts[2], study(Path("studies"), "killed"))
    started.ray("rsync-down", "~/studies/", f"{tmp_path}/fetched")
    same(Study(tmp_path / "fetched" / "killed"), undisturbed)


def test_a_worker_is_cut_off(started: Cluster, undisturbed: Study) -> None:
    """The study lies on storage that all share."""
    config = study(Path("/mnt/shared/studies"), "unplugged")
    go_through(started, Host.unplug, started.hosts[1], config)
    same(Study(shared(started, config).folder), undisturbed)
    started.hosts[1].plug()


def test_a_driver_dies_and_another_host_goes_on(started: Cluster, undisturbed: Study) -> None:
    """The search was left alone in tmux."""
    config = study(Path("/mnt/shared/studies"), "moved")
    output, _ = started.submit(config, "--tmux").communicate(timeout=60)
    assert "ray attach" in output
    seen = shared(started, config)
    wait_for(lambda: bool(scorers(seen)), within=300)
    ssh(started.head, "pkill -KILL -f ^python.*run.py")
    started.ray("down", "-y")
    assert ssh(started.head, "pgrep raylet", check=False).stdout == ""
    before = len(Study(seen.folder).candidates())
    assert 0 < before < len(undisturbed.candidates())
    other = started.hosts[1]
    ssh(other, f"bash -lc 'apportion search /mnt/shared/{config.name}.yaml --resume'")
    same(Study(seen.folder), undisturbed)


def test_the_object_store_is_too_small(started: Cluster) -> None:
    """Features that it cannot hold lie on the disk."""
    started.ray("down", "-y")
    changed: dict[str, Any] = {
        "input_size": 32,
        "backbone": {"model": "resnet14", "args": {"width": 16}},
        "tasks": [{"name": name, "source": "toy", "limit": 1200} for name in ("digits", "colours")],
        "proxy": TINY["proxy"] | {"images": 1200},
        "strategies": {"random": {}},
        "candidates": 6,
        "compute": {"device": "cpu", "threads": 1},
    }
    found = []
    for name, options in (("small", "--object-store-memory=80000000"), ("large", "")):
        config = tiny(Path("/mnt/shared/studies"), name=name, **changed)
        start = f"ray start --head --include-dashboard=false --disable-usage-stats {options}"
        spilled = "grep Spilled /tmp/ray/session_latest/logs/raylet.out"
        script = f"{start}; apportion search {write(started, config)}; {spilled}; ray stop"
        printed = ssh(started.hosts[1], f"bash -lc '{script}'").stdout
        assert ("Spilled" in printed) == bool(options)
        found.append(scores(Study(shared(started, config).folder)))
    assert found[0] == found[1]
