#!/usr/bin/env bash
# Builds the wheel, installs it with no extra into an empty environment, and uses it from an empty folder.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/bootstrap.sh cli dev

python=$PWD/.venv/bin/python
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m hatchling build -t wheel -d "$scratch/dist"
wheel=$(ls "$scratch"/dist/*.whl)

# Every file of the four floors that git knows (or would add) must be in the wheel, data files too.
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files --cached --others --exclude-standard -- zoo circuits sae apps | sort -u | while read -r file; do
        if [ -f "$file" ]; then printf '%s\n' "$file"; fi
    done >"$scratch/wanted"
    "$python" -m zipfile -l "$wheel" | awk '{print $1}' | sort -u >"$scratch/packed"
    sort -u "$scratch/wanted" | comm -23 - "$scratch/packed" >"$scratch/left_out"
    if [ -s "$scratch/left_out" ]; then
        echo "left out of the wheel:" >&2
        cat "$scratch/left_out" >&2
        exit 1
    fi
fi

echo "installing $(basename "$wheel") alone into an empty environment"
cp constraints.txt "$scratch"
cd "$scratch"
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python "$python" empty
    uv pip install --quiet --python empty/bin/python --constraint constraints.txt "$wheel"
else
    "$python" -m venv empty
    empty/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
        --constraint constraints.txt "$wheel"
fi
empty/bin/python -I - <<'PY'
import importlib.util
import pathlib

for extra in ("streamlit", "tyro", "transformers", "pytest"):
    assert importlib.util.find_spec(extra) is None, f"the empty environment has {extra}"

import circuits
import sae
import zoo

for package in (zoo, circuits, sae):
    folder = pathlib.Path(package.__file__).parent
    assert "site-packages" in folder.parts, folder
    assert (folder / "py.typed").exists(), f"{folder} has no py.typed"
model = circuits.load("scenes")
print(f"wheel: imported without extras; {model.name} has {len(model.layers)} layers")
PY

# The command line needs the extra `cli`: without it, one line says so (or the command works), never a traceback.
code=0
empty/bin/circuits models >said 2>&1 || code=$?
if [ "$code" -ne 0 ] && { [ "$code" -ne 2 ] || [ "$(wc -l <said)" -gt 3 ]; }; then
    echo "circuits models, without extras, ended with code $code and said:" >&2
    cat said >&2
    exit 1
fi
