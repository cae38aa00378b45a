#!/usr/bin/env bash
# Makes .venv hold this project (editable) with the extras named as arguments, at the versions of constraints.txt.
#
#   tools/bootstrap.sh cli dev
#
# Uses uv where it is on PATH, else venv + pip. PYTHON=/path/to/python chooses the interpreter of a new .venv.
# What was installed is written to .venv/.installed when all went well; as long as pyproject.toml,
# constraints.txt and this file stay as they are, a second call finds it and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
python=$venv/bin/python
stamp=$venv/.installed

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# Two makes at once wait for each other (where flock exists; the lock is on a file that is always there).
if command -v flock >/dev/null 2>&1; then
    exec 9<pyproject.toml
    flock 9
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The folder counts: the scripts of a virtual environment name it, so an environment that was moved is a new one.
key="$(cat pyproject.toml constraints.txt tools/bootstrap.sh | cksum) $PWD"

installed=""
if [ -f "$stamp" ] && new_enough "$python"; then
    { read -r stamped_key && read -r installed; } <"$stamp" || { stamped_key=""; installed=""; }
    missing=""
    for extra in "$@"; do
        case " $installed " in *" $extra "*) ;; *) missing="$missing $extra" ;; esac
    done
    if [ "$stamped_key" = "$key" ] && [ -z "$missing" ]; then exit 0; fi
    if [ "${stamped_key##* }" != "${key##* }" ]; then
        say "$venv was made in another folder: making it anew"
        rm -rf "$venv"
        installed=""
    fi
fi
# Extras that were there stay, so that a changed lock moves them too.
extras=$(printf '%s\n' $installed "$@" | sort -u | tr '\n' ' ')
extras=${extras% }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" && command -v "$PYTHON" && return
        say "PYTHON=$PYTHON is not a Python 3.11 or later"
        return 1
    fi
    for candidate in python3 python python3.12 python3.11 python3.13 python3.14; do
        new_enough "$candidate" && command -v "$candidate" && return
    done
    return 1
}

# Prints the first file that an installed package lists but that is missing or cut short. An install that was
# killed half-way leaves such packages, and both uv and pip would take them for installed ever after.
first_damage() {
    "$python" -I - <<'PY'
import csv, pathlib, sysconfig

for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    for info in sorted(pathlib.Path(site).glob("*.dist-info")):
        record = info / "RECORD"
        if not record.exists():
            raise SystemExit(print(record))
        with record.open(newline="", encoding="utf-8") as rows:
            for name, _, size in (row for row in csv.reader(rows) if not row[0].endswith(".pyc")):
                file = pathlib.Path(site, name)
                if not file.exists() or (size and file.stat().st_size != int(size)):
                    raise SystemExit(print(file))
PY
}

if [ -e "$venv" ]; then
    if ! new_enough "$python"; then
        say "$venv has no working Python 3.11 or later: making it anew"
        rm -rf "$venv"
    elif ! damage=$(first_damage) || [ -n "$damage" ]; then
        say "$venv was left half-made (${damage:-unreadable}): making it anew"
        rm -rf "$venv"
    fi
fi
rm -f "$stamp"

if [ ! -e "$venv" ]; then
    if base=$(find_python); then
        say "making $venv with $base"
        if command -v uv >/dev/null 2>&1; then uv venv --quiet --python "$base" "$venv"
        elif ! "$base" -m venv "$venv"; then
            rm -rf "$venv"
            say "$base cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
            exit 1
        fi
    elif [ -z "${PYTHON:-}" ] && command -v uv >/dev/null 2>&1; then
        say "no Python 3.11 or later here: asking uv for one"
        uv venv --quiet --python ">=3.11" "$venv"
    else
        [ -n "${PYTHON:-}" ] || say "no Python 3.11 or later found: install one, or name it: make ... PYTHON=/path/to/python"
        exit 1
    fi
fi

with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    # Bytecode now, as pip does it: else the first run pays for it.
    uv pip install --compile-bytecode --python "$python" --constraint constraints.txt "$@" && return
    say "uv could not install (its registry settings are not pip's): trying pip"
    return 1
}
with_pip() {
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip --upgrade
    "$python" -m pip install --disable-pip-version-check --constraint constraints.txt "$@"
}
install() {
    with_uv "$@" || with_pip "$@" || { say "could not install: the lines above say why (no network?); then run make again"; exit 1; }
}

say "installing into $venv: core${extras:+ + $extras} (several minutes the first time)"
# The build back end comes first, pinned like the rest; the project is then built without fetching another.
# torch and torchvision come in the second command, together: they must be the same build.
install hatchling
install --no-build-isolation --editable ".${extras:+[${extras// /,}]}"

printf '%s\n%s\n' "$key" "$extras" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "$venv is ready"
