"""The shipped cluster.yaml on three hosts: from nothing to a study, and the loss of machines."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search.commands.search import search
from search.config import StudyConfig, dump_config
from search.record import read_record
from search.study import Study
from tests.cluster.hosts import Host, at_hub, hosts, missing, run, ssh
from tests.helpers import ROOT
from tests.helpers.studies import EXPECTED, accounted, mirrored, quiet, tiny, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    # Ray starts and ends processes of its own in this one.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.timeout(1200),
]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
APPORTION = (sys.executable, "-m", "apportion")


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

    def submit(self, config: StudyConfig, *options: str) -> "subprocess.Popen[str]":
        """Start a search as the README does."""
        script = str(ROOT / "search" / "run.py")
        command = [*RAY, "submit", str(self.file), *options, script]
        return subprocess.Popen(
            at_hub([*command, "--", "--config", write(self, config)]),
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
    alive = "import ray; ray.init(log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    wait_for(
        lambda: ssh(cluster.head, f'~/apportion-env/bin/python -c "{alive}"').stdout[-2:] == "3\n",
    )
    return cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """What a search on one machine finds."""
    return search(study(tmp_path_factory.mktemp("undisturbed"), "undisturbed"), console=quiet())


def study(output: Path, name: str) -> StudyConfig:
    return tiny(output, name=name, compute={"device": "cpu", "threads": 1})


def shared(cluster: Cluster, config: StudyConfig) -> StudyConfig:
    """A study of the hosts as it is found from outside."""
    return replace(config, output=str(cluster.folder / "shared" / "studies"))


def write(cluster: Cluster, config: StudyConfig) -> str:
    """The path of a config's file on the hosts."""
    file = f"{config.name}.yaml"
    (cluster.folder / "shared" / file).write_text(yaml.safe_dump(dump_config(config)))
    return f"/mnt/shared/{file}"


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
    assert {c.id: (c.vector, c.accuracy, c.error) for c in found.candidates()} == {
        c.id: (c.vector, c.accuracy, c.error) for c in undisturbed.candidates()
    }


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
) -> None:
    """Have an accident happen to a host that scores candidates of a search, which then ends."""
    process = cluster.submit(config)
    seen = shared(cluster, config)
    if config.output == "studies":
        seen = replace(config, output=str(cluster.head.folder / "home" / "studies"))
    wait_for(lambda: {cluster.head.address, host.address} <= scorers(seen), within=300)
    accident(host)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


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
