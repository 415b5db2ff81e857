#!/usr/bin/env bash
# What riskft costs on one NVIDIA card, in at most 8 minutes: step, loader, phase 1, DDP.
#
#   bash experiments/benchmarks/gpu.sh [OUT [--smoke]]
#
# Writes OUT/gpu.csv and OUT/gpu.md (with the card's name). For a machine without network whose Python has torch but not
# all that riskft needs, put the missing wheels into a folder first, and name it in WHEELS:
#
#   python -m pip download --no-deps --only-binary=:all: -d wheels torchio monai SimpleITK nibabel ...
#   WHEELS=wheels bash experiments/benchmarks/gpu.sh
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
out="${1:-runs/benchmarks}"
python="${PYTHON:-python3}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

if [ -n "${WHEELS:-}" ]; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$root:$site${PYTHONPATH:+:$PYTHONPATH}"
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no NVIDIA card"
mkdir -p "$out"
timeout 480 "$python" "$root/experiments/benchmarks/gpu.py" --out "$out" "${@:2}"
