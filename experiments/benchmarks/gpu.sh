#!/usr/bin/env bash
# Measures riskft on one NVIDIA GPU, in at most 8 minutes: training step, loader, phase 1, DDP.
#
#   bash experiments/benchmarks/gpu.sh [OUT [--smoke]]
#
# Writes OUT/gpu.csv and OUT/gpu.md (with the GPU's name). If the machine has no internet access and its Python has torch
# but not everything else that riskft needs, first put the missing wheels into a folder, and name it in WHEELS:
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
