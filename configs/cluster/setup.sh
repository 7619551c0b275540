#!/bin/sh
# Makes Apportion's own Python environment on a machine, ~/apportion-env, or brings it up to date.
# Every node of a cluster runs it (setup_commands in cluster.yaml); run again, it does what is missing.
#
#   sh ~/apportion/configs/cluster/setup.sh          the newest Python of 3.11 to 3.13 that is there
#   sh ~/apportion/configs/cluster/setup.sh 3.12     uv's of that version, the same on every machine
#
# Where there is no such Python, uv fetches one. ~/.bashrc and ~/.profile get a line by which `python`
# and `ray` are the environment's.
set -eu

project=$(cd "$(dirname "$0")/../.." && pwd)
env=$HOME/apportion-env
version=${1:-}

usable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

ready() {
    usable "$env/bin/python" && "$env/bin/python" -m pip --version >/dev/null 2>&1 &&
        "$env/bin/python" -V | grep -qF " $version"
}

# What an interrupted run or an upgrade of the system left is made anew.
if ! ready; then
    rm -rf "$env"
    if [ -z "$version" ]; then
        for python in python3.13 python3.12 python3.11 python3; do
            if usable "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; then
                "$python" -m venv "$env"
                break
            fi
        done
    fi
    if [ ! -d "$env" ]; then
        # A Python that is too old, or without its venv module, as Debian splits it.
        PATH=$HOME/.local/bin:$PATH
        command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
        uv venv --seed --python "${version:-3.12}" "$env"
    fi
fi

# Fetching takes minutes and is done where the list of packages has changed.
wanted=$(cat "$project/constraints.txt" "$project/pyproject.toml" | cksum)
if [ "$(cat "$env/.installed" 2>/dev/null)" != "$wanted" ]; then
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$project/constraints.txt" -e "${project}[cluster]"
    echo "$wanted" >"$env/.installed"
fi

# Shells of `ray up` and `ray submit` are interactive login shells; the line comes first, as Debian's
# .bashrc returns at once in others.
line="export PATH=\"$env/bin:\$PATH\""
for file in "$HOME/.bashrc" "$HOME/.profile"; do
    touch "$file"
    grep -qF "$line" "$file" || {
        { echo "$line"; cat "$file"; } >"$file.apportion"
        cat "$file.apportion" >"$file"
        rm "$file.apportion"
    }
done
"$env/bin/python" -c 'import apportion, sys; print("apportion is ready for Python", sys.version.split()[0])'
