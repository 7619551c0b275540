"""`apportion cluster check`: what the machines of a cluster lack, before anything is started."""

import importlib.util
import os
import shlex
import shutil
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.config import PROJECT, StudyConfig

#: Seconds that a machine has to let ssh in, and in all.
CONNECTS_WITHIN = 10
ANSWERS_WITHIN = 60
#: Room that the environment takes, with a CUDA build of torch.
GIBIBYTES = 12.0
#: Seconds by which clocks may differ; later ones would order candidates wrongly.
CLOCK = 5.0
#: Addresses that stand for others in examples (RFC 5737).
EXAMPLES = ("192.0.2.", "198.51.100.", "203.0.113.")
NO_IMAGE = "ami-00000000000000000"
#: Asked of every machine, by `sh`: a line NAME=VALUE for each thing.
PROBE = """\
echo "clock=$(date +%s.%N)"
for python in python3.13 python3.12 python3.11 python3; do
    "$python" -c 'import sys, venv, ensurepip; v = sys.version_info
sys.exit(not (3, 11) <= v < (3, 14))' 2>/dev/null || continue
    echo "python=$("$python" -V | cut -d' ' -f2)"
    break
done
[ -x ~/apportion-env/bin/python ] && echo "env=$(~/apportion-env/bin/python -V | cut -d' ' -f2)"
command -v uv >/dev/null && echo uv=yes
command -v curl >/dev/null && echo curl=yes
command -v rsync >/dev/null && echo rsync=yes
echo "free=$(df -Pk ~ | awk 'NR == 2 {print $4}')"
echo "gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')"
"""


class ClusterError(ValueError):
    """A cluster's file that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine says of itself.

    Attributes:
        address: Its address in the file.
        said: Its lines, by name; empty where it was not reached.
        ahead: Seconds by which its clock is ahead of this machine's, beyond what asking took.
        problems: What it lacks, a line each.
    """

    address: str
    said: Mapping[str, str]
    ahead: float
    problems: tuple[str, ...]

    @property
    def python(self) -> str:
        """Version of the Python that it has, or will have."""
        return self.said.get("env") or self.said.get("python") or "fetched by uv"


def check_cluster(file: Path, config: StudyConfig | None, console: Console) -> bool:
    """Say what the machines of a cluster lack.

    Args:
        file: What `ray up` is given.
        config: A study; that the head has its data and all share its folders is then checked.
        console: Where to.

    Returns:
        Whether nothing is missing.

    Raises:
        ClusterError: The file cannot be read, or Ray refuses it.
    """
    content = read_cluster(file)
    provider, machines = content["provider"], list[Machine]()
    if _is_local(content):
        addresses = [provider["head_ip"], *provider.get("worker_ips", [])]
        auth = content["auth"]
        with ThreadPoolExecutor(len(addresses)) as pool:
            machines += pool.map(lambda address: _ask(address, auth), addresses)
        console.print(_table(machines))
        problems = [*_here(content)]
        problems += [f"{each.address}: {line}" for each in machines for line in each.problems]
        reached = [machine for machine in machines if machine.said]
        problems += _unlike(reached)
        if config is not None and machines[0].said:
            problems += _folders([machine.address for machine in reached], auth, config)
    else:
        problems = [*_of_cloud(content)]
    for line in problems:
        console.print(f"[red]missing[/] {escape(line)}", highlight=False, soft_wrap=True)
    if not machines:
        _say(console, f"{file} is valid; no machine of it is there yet that could be asked")
    if not problems:
        _say(console, f"nothing is missing: ray up -y {file}")
    return not problems


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def read_cluster(file: Path) -> dict[str, Any]:
    """What a cluster's file says, as Ray understands it.

    Raises:
        ClusterError: It cannot be read, or Ray refuses it.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise ClusterError(f"{file} is not a cluster's file: it has no provider")
    try:
        content = prepare_config(content)
        validate_config(content)
    except Exception as error:  # whatever Ray and its schema raise
        first = str(getattr(error, "message", error)).splitlines()[0]
        raise ClusterError(f"Ray refuses {file}: {first}") from error
    wanted = {"auth": "ssh_user"} | ({"provider": "head_ip"} if _is_local(content) else {})
    for part, key in wanted.items():
        if key not in content.get(part, {}):
            raise ClusterError(f"{file} has no {part}.{key}")
    return dict(content)


def _is_local(content: Mapping[str, Any]) -> bool:
    return bool(content["provider"]["type"] == "local")


def _of_cloud(content: Mapping[str, Any]) -> Iterator[str]:
    """What is missing before machines of a cloud can be started."""
    if content["provider"]["type"] != "aws":
        return
    if importlib.util.find_spec("boto3") is None:
        yield "boto3, by which Ray starts machines: pip install 'apportion[aws]'"
    known = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_SHARED_CREDENTIALS_FILE"}
    if not known & os.environ.keys() and not Path("~/.aws").expanduser().is_dir():
        yield (
            "credentials of AWS: neither ~/.aws nor AWS_PROFILE is there (a role of this machine's "
            "own is not looked for)"
        )
    for name, node in content["available_node_types"].items():
        if node["node_config"].get("ImageId", NO_IMAGE) == NO_IMAGE:
            yield f"an image of yours as ImageId of {name}"


def _unlike(machines: Sequence[Machine]) -> Iterator[str]:
    """Whether all machines will have one Python, to the last digit, as a search asks of them."""
    versions = {machine.address: machine.python for machine in machines}
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{address} {version}" for address, version in versions.items())
        yield (
            f"one version of Python on all machines ({listed}): have setup_commands say `sh "
            "~/apportion/configs/cluster/setup.sh 3.12`, which takes uv's on each"
        )


def _here(content: Mapping[str, Any]) -> Iterator[str]:
    """What this machine lacks to reach others."""
    for program in ("ssh", "rsync"):
        if shutil.which(program) is None:
            yield f"{program}, on this machine"
    key = content["auth"].get("ssh_private_key")
    if key is not None:
        path = Path(key).expanduser()
        if not path.is_file():
            yield f"the key {key} of auth.ssh_private_key, on this machine"
        elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"a key that only you may read: chmod 600 {key}"
    (workers,) = content["available_node_types"].values()
    if workers["min_workers"] < len(content["provider"].get("worker_ips", [])):
        yield "min_workers as high as there are worker_ips; the others are never started"
    code = Path(content.get("file_mounts", {}).get("~/apportion", PROJECT)).expanduser()
    if not (code / "configs" / "cluster" / "setup.sh").is_file():
        yield f"Apportion in {code.resolve()}, from which nodes get it: run this in the project"


def _ssh(address: str, auth: Mapping[str, Any], script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script on a machine."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options += [f"ConnectTimeout={CONNECTS_WITHIN}", "LogLevel=ERROR"]
    command = ["ssh", *(word for option in options for word in ("-o", option))]
    if key := auth.get("ssh_private_key"):
        command += ["-i", str(Path(key).expanduser()), "-o", "IdentitiesOnly=yes"]
    if proxy := auth.get("ssh_proxy_command"):
        command += ["-o", f"ProxyCommand={proxy}"]
    command += [f"{auth['ssh_user']}@{address}", "sh -s"]
    return subprocess.run(
        command,
        input=script,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=ANSWERS_WITHIN,
        check=False,
    )


def _holds(address: str, auth: Mapping[str, Any], script: str) -> bool:
    """Whether a script ends well on a machine; one that hangs does not."""
    try:
        return not _ssh(address, auth, script).returncode
    except subprocess.TimeoutExpired:
        return False


def _ask(address: str, auth: Mapping[str, Any]) -> Machine:
    """What a machine says of itself, and lacks."""
    if address.startswith(EXAMPLES):
        return _lost(address, "an address: this one stands for yours in the example")
    before = time.time()
    try:
        answer = _ssh(address, auth, PROBE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _lost(address, f"an answer by ssh: {error}")
    after = time.time()
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        return _lost(address, f"a way in by ssh: {reason}")
    said = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    try:
        clock, free = float(said["clock"]), float(said["free"]) / 2**20
    except (KeyError, ValueError):
        return _lost(address, f"an answer that can be understood: {answer.stdout.strip()!r}")
    ahead = max(clock - after, 0.0) + min(clock - before, 0.0)
    problems = []
    if not said.keys() & {"env", "python", "uv", "curl"}:
        problems.append(
            "Python 3.11 to 3.13 with venv, and uv or curl, by which the setup would fetch one: "
            "apt install python3-venv, or curl"
        )
    if "rsync" not in said:
        problems.append("rsync")
    if free < GIBIBYTES and "env" not in said:
        problems.append(f"room: {free:.0f} GiB in the home folder, of {GIBIBYTES:g} that it takes")
    if abs(ahead) > CLOCK:
        problems.append(f"a clock that is right: it is {ahead:+.0f} seconds from this machine's")
    return Machine(address=address, said=said, ahead=ahead, problems=tuple(problems))


def _lost(address: str, problem: str) -> Machine:
    return Machine(address=address, said={}, ahead=0.0, problems=(problem,))


def _folders(
    addresses: Sequence[str], auth: Mapping[str, Any], config: StudyConfig
) -> Iterator[str]:
    """Folders of a study that not all machines have in common."""
    for path in dict.fromkeys(filter(None, [config.output, config.cache])):
        folder = _remote(path)
        name = f".apportion-{uuid.uuid4().hex}"
        if not _holds(addresses[0], auth, f"mkdir -p {folder} && : > {folder}/{name}"):
            yield f"{addresses[0]}: leave to write to {path}"
            continue
        for address in addresses[1:]:
            if not _holds(address, auth, f"[ -e {folder}/{name} ] && : > {folder}/{name}"):
                yield (
                    f"{address}: {path} as {addresses[0]} has it, on storage that all share; a "
                    "search then keeps its files on the head alone, and goes on there alone"
                )
        _holds(addresses[0], auth, f"rm -f {folder}/{name}")
    root = config.data_root
    if config.evaluator == "simulated" or root is None:
        return
    if Path(root).is_relative_to(PROJECT):  # it goes where the project goes
        if not Path(root).exists():
            yield f"the data, {root}, on this machine, from which the head gets it"
    elif not _holds(addresses[0], auth, f"[ -e {_remote(root)} ]"):
        yield f"{addresses[0]}: the data, {root}, which the head reads"


def _remote(path: str) -> str:
    """A path for a remote shell, which begins in the home folder there, as `ray submit` does."""
    given, home = Path(path), Path.home()  # the latter is what `~` of a config has become
    return shlex.quote(str(given.relative_to(home) if given.is_relative_to(home) else given))


def _table(machines: Sequence[Machine]) -> Table:
    table = Table("machine", "Python", "GPUs", "GiB free", "clock")
    for machine in machines:
        said = machine.said
        if not said:
            table.add_row(machine.address, *["-"] * 4)
            continue
        free = f"{float(said['free']) / 2**20:.0f}"
        clock = f"{machine.ahead:+.1f} s" if machine.ahead else "right"
        table.add_row(machine.address, machine.python, said["gpus"], free, clock)
    return table
