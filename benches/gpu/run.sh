#!/usr/bin/env bash
# Checks a version on a GPU against the same one on the processor, and measures it against ONNX Runtime's own Python loop with
# bound inputs and outputs, in one run. Writes benches/results/<date>-gpu.md.
#
#   benches/gpu/run.sh                  with the installed headgate[gpu], onnx and numpy; needs wrk
#   benches/gpu/run.sh WHEELS           in an environment of its own, made from the wheels in that folder (no network);
#                                       CUDA's libraries are taken from the calling Python's wheels where WHEELS has none
#   DEVICE=cpu benches/gpu/run.sh       the same without a GPU: tries the script
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export ORT_DISABLE_TELEMETRY=1

if [ $# -gt 0 ]; then
  wheels=$(realpath "$1")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  nvidia=$("$python" -c 'import importlib.util as u; s = u.find_spec("nvidia"); print(next(iter(s.submodule_search_locations)) if s else "")')
  "$python" -m venv "$work/venv"
  site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # Without its dependencies where they are not in the folder: the provider's libraries may come from elsewhere.
  "$work/venv/bin/python" -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
  if [ ! -e "$site/nvidia" ] && [ -n "$nvidia" ]; then
    ln -s "$nvidia" "$site/nvidia"
  fi
  python=$work/venv/bin/python
fi

if [ "${DEVICE:-cuda:0}" != cpu ]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
"$python" -m benches.gpu.compare --device "${DEVICE:-cuda:0}" --seconds "${SECONDS_EACH:-3}"
