#!/usr/bin/env bash
# Every row of docs/benchmarks.md that needs a GPU, in one sitting of less than eight minutes:
#
#     benchmarks/gpu.sh [OUT]                         # tables into OUT (build/gpu.md)
#     benchmarks/gpu.sh --device cpu --quick [OUT]    # the same commands with tiny sizes: whether each writes its rows
#
# With PYTHON=... another interpreter. Photographs are those of $CIRCUITS_DATA, without it drawn scenes.
# A command that fails or takes longer than its share is named in the table, and the exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
quick='' device=cuda
while [[ "${1:-}" == --* ]]; do
    case $1 in
        --quick) quick=1 ;;
        --device) device=${2:?--device cuda or cpu}; shift ;;
        *) echo "gpu.sh has no option $1: --device cuda|cpu, --quick"; exit 2 ;;
    esac
    shift
done
out=$(realpath -m "${1:-build/gpu.md}")
python=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
images=${CIRCUITS_DATA:-scenes:512}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$out")"
failed=0

row() { # title, seconds at most, command: its output below a heading, and how long it took
    local title=$1 limit=$2 began=$SECONDS code
    shift 2
    printf '\n### %s\n\n`%s`\n\n' "$title" "$(echo "$*" | sed "s,$python,python,g; s,$work,OUT,g; s,$PWD/,,g")" >>"$out"
    [ $device = cpu ] && limit=$((limit * 10)) # a busy machine, and Triton's interpreter
    timeout --kill-after=10 "$limit" "$@" >"$work/row.txt" 2>"$work/row.err"
    code=$?
    cat "$work/row.txt" >>"$out"
    if [ $code -ne 0 ] || [ ! -s "$work/row.txt" ]; then
        failed=1
        printf '\nFailed (exit code %s): %s\n' "$code" "$(tail -1 "$work/row.err")" >>"$out"
    fi
    printf '\n%s s by the clock.\n' $((SECONDS - began)) >>"$out"
    echo "$title: $((SECONDS - began)) s, exit code $code"
}

if [ $device = cpu ]; then
    export CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1 TRITON_INTERPRET=1
    ranks=2
else
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        { echo "no GPU here: torch.cuda.is_available() is False; --device cpu --quick tries the commands"; exit 2; }
    ranks=$("$python" -c 'import torch; print(torch.cuda.device_count())')
fi
if [ -n "$quick" ]; then
    many=8 rounds=1
    shapes=(--shapes 16,64,4,64 --steps 2)
    train=(--latents 64 --k 4 --steps 8) layers=(--layers mixed3a --turn 1)
    tests=(-k "forward_and_gradients")
else
    many=512 rounds=3
    shapes=(--steps 30) tests=()
    train=(--latents 32768 --k 32 --steps 500) layers=()
fi

"$python" - >"$out" <<'P'
import platform, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
print(f"## On {name}\n\nTorch {torch.__version__}, Python {platform.python_version()}.")
P

row "The kernels against float64" 90 "$python" -m pytest -q "${tests[@]}" tests/sae/architectures/triton_kernels.py
row "A training step, by path" 90 "$python" benchmarks/sae.py --device $device "${shapes[@]}"
for precision in float32 bfloat16; do
    row "A whole training, $precision" 60 "$python" -m torch.distributed.run --nproc-per-node "$ranks" --no-python \
        "$python" -m apps.cli sae train scenes/mixed3b --images scenes:$many --precision $precision "${train[@]}" \
        --out "$work/$precision"
done
row "Scan" 60 "$python" benchmarks/scan.py --device $device --images "$images" --n $many --rounds $rounds
row "Capture, its images decoded ahead" 40 "$python" benchmarks/capture.py --device $device --images "$images" \
    --n $many --chunk $((many / 2))
row "Feature visualization" 90 "$python" benchmarks/visualize.py --device $device --rounds $rounds "${layers[@]}"
echo "written: $out"
exit $failed
