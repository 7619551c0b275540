"""Hosts of a made-up network, each with its own processes, home, Ray and ssh server.

A host is a network, process and mount namespace of this machine, behind a bridge that no other
network sees. On every host /mnt/home is its own home, /tmp/ray a disk of its own, and /mnt/shared a
folder of all of them. It takes root, iproute2, openssh-server, rsync and tmux.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync", "tmux")
#: Of which the last byte is a host's number; nothing outside the namespaces hears of it.
NETWORK = "10.77.0."
HUB = "apportion-hub"
#: Room for Ray's files on a host.
MEGABYTES = 300
#: What sshd is told: keys alone, no lookups.
SSHD = """\
Port 22
HostKey /mnt/host/host_key
AuthorizedKeysFile /mnt/host/key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
"""
PASSWD = "root:x:0:0:root:/mnt/home:/bin/bash\nsshd:x:1:1::/:/bin/false\n"
#: The command of that name, of the host's Python.
RAY = """\
#!/mnt/home/apportion-env/bin/python
from ray.scripts.scripts import main

main()
"""
#: Where a host's own folders come to lie, then its server as process 1: with it the host dies.
START = """\
hostname {name}
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /dev/shm
mkdir -p /mnt/home /mnt/host /mnt/shared /tmp/ray /run/sshd
mount --bind {folder}/home /mnt/home
mount --bind {folder} /mnt/host
mount --bind {folder}/../shared /mnt/shared
mount -t tmpfs -o size={megabytes}m tmpfs /tmp/ray
mount --bind {folder}/passwd /etc/passwd
exec {sshd} -D -e -f /mnt/host/sshd_config 2> /mnt/host/sshd.log
"""


def missing() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if sys.platform != "linux" or os.geteuid():
        return "hosts take Linux and root"
    lacking = [name for name in PROGRAMS if not _find(name)]
    if lacking:
        return f"hosts take {', '.join(lacking)}"
    if subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], check=False).returncode:
        return "namespaces cannot be made here"
    return None


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host that runs.

    Attributes:
        number: From 1; also the last part of its address, plus 10.
        folder: Of its home and its server's files.
        server: Process 1 of the host, as seen from outside.
    """

    number: int
    folder: Path
    server: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """Of the only network that it has."""
        return f"{NETWORK}{self.number + 10}"

    @property
    def link(self) -> str:
        """The hub's end of its cable."""
        return f"ap{self.number}"

    def kill(self) -> None:
        """Cut its power."""
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def unplug(self) -> None:
        """Pull its cable; everything on it goes on."""
        run(["ip", "link", "set", self.link, "down"])

    def plug(self) -> None:
        """Put its cable back."""
        run(["ip", "link", "set", self.link, "up"])


@contextmanager
def hosts(number: int, folder: Path) -> Iterator[list[Host]]:
    """Hosts that reach each other and the hub, where `run` runs, by ssh.

    Args:
        number: How many.
        folder: For their files; `folder/key` becomes the key that all let in, `folder/shared`
            what all see as /mnt/shared.
    """
    (folder / "shared").mkdir()
    with ExitStack() as stack:
        _ip("netns", "add", HUB)
        stack.callback(_ip, "netns", "del", HUB)
        run(["ip", "link", "set", "lo", "up"])
        run(["ip", "link", "add", "bridge", "type", "bridge"])
        run(["ip", "addr", "add", f"{NETWORK}1/24", "dev", "bridge"])
        run(["ip", "link", "set", "bridge", "up"])
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(folder / "key")], check=True)
        found = []
        for each in range(1, number + 1):
            found.append(_start(each, folder / f"host{each}", folder / "key", stack))
        for host in found:
            _wait_for_ssh(host)
        yield found


def at_hub(command: Sequence[str]) -> list[str]:
    """A command as it is to be run for the hub's network to be its own."""
    return [_where("ip"), "netns", "exec", HUB, *command]


def run(
    command: Sequence[str], *, within: float = 600, check: bool = True, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command at the hub."""
    return subprocess.run(
        at_hub(command),
        check=check,
        capture_output=True,
        text=True,
        timeout=within,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
    )


def ssh(host: Host, command: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command on a host."""
    words = ["ssh", "-i", str(host.folder.parent / "key"), "-o", "BatchMode=yes"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    return run([*words, f"root@{host.address}", command], check=check)


def _start(number: int, folder: Path, key: Path, stack: ExitStack) -> Host:
    (folder / "home").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(folder / "host_key")], check=True)
    shutil.copy(key.with_suffix(".pub"), folder / "key.pub")
    (folder / "sshd_config").write_text(SSHD)
    (folder / "passwd").write_text(PASSWD)
    _give_environment(folder / "home")
    name = f"apportion-host{number}"
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    link = f"ap{number}"
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name])
    run(["ip", "link", "set", link, "master", "bridge"])
    run(["ip", "link", "set", link, "up"])
    inside = ("netns", "exec", name, _where("ip"))
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "addr", "add", f"{NETWORK}{number + 10}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "route", "add", "default", "via", f"{NETWORK}1")  # or Ray takes 127.0.0.1
    script = START.format(name=name, folder=folder, sshd=_where("sshd"), megabytes=MEGABYTES)
    command = [_where("ip"), "netns", "exec", name, "unshare", "--mount", "--uts"]
    command += ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-e", "-c", script]
    environment = {"HOME": "/mnt/home", "PATH": os.environ["PATH"]}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    host = Host(number=number, folder=folder, server=server)
    stack.callback(host.kill)
    return host


def _give_environment(home: Path) -> None:
    """An environment in which everything is installed but Apportion, so that nothing is fetched."""
    env = home / "apportion-env"
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    (packages,) = env.glob("lib/python*/site-packages")
    for old in packages.glob("setuptools*"):  # Python 3.11 brings one that is too old
        shutil.rmtree(old)
    here = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "base.pth").write_text("\n".join(here))
    # Installed with its package, which is there already, and for this Python.
    script = env / "bin" / "ray"
    script.write_text(RAY)
    script.chmod(0o755)
    pip = home / ".config" / "pip" / "pip.conf"
    pip.parent.mkdir(parents=True)
    # Of the second, pip takes "false" for the option itself.
    pip.write_text("[global]\nno-index = true\nno-build-isolation = false\n")


def _wait_for_ssh(host: Host) -> None:
    end = time.monotonic() + 20
    while ssh(host, "true", check=False).returncode:
        if time.monotonic() > end:
            raise RuntimeError((host.folder / "sshd.log").read_text())
        time.sleep(0.2)


def _ip(*words: str) -> None:
    subprocess.run([_where("ip"), *words], check=True, stdin=subprocess.DEVNULL)


def _find(name: str) -> str | None:
    """A program, of the administrator's, too; None where it is missing."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))


def _where(name: str) -> str:
    path = _find(name)
    assert path is not None
    return path
