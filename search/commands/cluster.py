"""`apportion cluster check`: what the machines of a cluster lack, before anything is started."""

import importlib.util
import os
import re
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


def check_cluster(file: Path, config: StudyConfig | None, console: Console) -> bool:
    """Say what the machines of a cluster lack.

    Args:
        file: What `ray up` is given.
        config: A study; that every machine sees its data and shares its folders is then checked.
        console: Where to.

    Returns:
        Whether nothing is missing.

    Raises:
        ClusterError: The file cannot be read, or Ray refuses it.
    """
    content = read_cluster(file)
    provider = content["provider"]["type"]
    if provider != "local":
        problems = list(_of_provider(provider))
        for line in problems:
            console.print(f"[red]missing[/] {escape(line)}", highlight=False, soft_wrap=True)
        console.print(
            f"{file} is valid; its machines do not exist yet, so nothing was asked of them",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return not problems
    problems = [*_here(content)]
    addresses = [content["provider"]["head_ip"], *content["provider"].get("worker_ips", [])]
    with ThreadPoolExecutor(len(addresses)) as pool:
        machines = list(pool.map(lambda address: _ask(address, content["auth"]), addresses))
    reached = [machine.address for machine in machines if machine.said]
    if config is not None and reached:
        problems += _folders(reached, content["auth"], config)
    console.print(_table(machines))
    for machine in machines:
        problems += [f"{machine.address}: {line}" for line in machine.problems]
    for line in problems:
        console.print(f"[red]missing[/] {escape(line)}", highlight=False, soft_wrap=True)
    if not problems:
        console.print(f"nothing is missing: ray up -y {file}", highlight=False)
    return not problems


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
    return dict(content)


def _of_provider(provider: str) -> Iterator[str]:
    """What this machine lacks to start machines of a cloud."""
    if provider == "aws":
        if importlib.util.find_spec("boto3") is None:
            yield "boto3, by which Ray starts machines: pip install 'apportion[aws]'"
        known = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"} & os.environ.keys()
        if not known and not Path("~/.aws").expanduser().is_dir():
            yield "credentials of AWS: neither ~/.aws nor AWS_PROFILE is there"


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
    if auth.get("ssh_private_key"):
        command += [
            "-i",
            str(Path(auth["ssh_private_key"]).expanduser()),
            "-o",
            "IdentitiesOnly=yes",
        ]
    command += [f"{auth['ssh_user']}@{address}", "sh -s"]
    return subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=ANSWERS_WITHIN, check=False
    )


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
    clock = float(said["clock"])
    ahead = max(clock - after, 0.0) + min(clock - before, 0.0)
    problems = []
    if not said.keys() & {"env", "python", "uv", "curl"}:
        problems.append(
            "Python 3.11 to 3.13 with venv, and uv or curl, by which the setup would fetch one: "
            "apt install python3-venv, or curl"
        )
    if "rsync" not in said:
        problems.append("rsync")
    free = float(said["free"]) / 2**20
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
        made = _ssh(addresses[0], auth, f"mkdir -p {folder} && : > {folder}/{name}")
        if made.returncode:
            yield f"{addresses[0]}: leave to write to {path}: {made.stderr.strip()}"
            continue
        for address in addresses[1:]:
            if _ssh(address, auth, f"[ -e {folder}/{name} ] && : > {folder}/{name}").returncode:
                yield (
                    f"{address}: {path} as {addresses[0]} has it, on storage that all share; a "
                    "search then keeps its files on the head alone, and goes on there alone"
                )
        _ssh(addresses[0], auth, f"rm -f {folder}/{name}")
    root = config.data_root
    if config.evaluator == "simulated" or root is None or Path(root).is_relative_to(PROJECT):
        return  # what lies in the project goes where it goes
    if _ssh(addresses[0], auth, f"[ -e {_remote(root)} ]").returncode:
        yield f"{addresses[0]}: the data, {root}, which the head reads"


def _remote(path: str | Path) -> str:
    """A path for a remote shell: `ray submit` runs in the home folder, as ssh does."""
    return shlex.quote(re.sub(r"^~/", "", str(path)))


def _table(machines: Sequence[Machine]) -> Table:
    table = Table("machine", "Python", "GPUs", "GiB free", "clock")
    for machine in machines:
        said = machine.said
        if not said:
            table.add_row(machine.address, *["-"] * 4)
            continue
        python = said.get("env") or said.get("python") or "fetched by uv"
        free = f"{float(said['free']) / 2**20:.0f}"
        clock = f"{machine.ahead:+.1f} s" if machine.ahead else "right"
        table.add_row(machine.address, python, said["gpus"], free, clock)
    return table
