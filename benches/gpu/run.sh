#!/usr/bin/env bash
# Checks a version on a GPU against the same one on the processor, and measures it against ONNX Runtime's own Python loop with
# bound inputs and outputs, in one run. Writes benches/results/<date>-gpu.md; fails when answers are wrong.
#
#   benches/gpu/run.sh                  with the installed headgate[gpu], onnx and numpy; needs wrk
#   benches/gpu/run.sh WHEELS           in an environment of its own, made from the wheels in that folder (no network).
#                                       WHEELS/wrk is used where there is one, with the libraries beside it. CUDA's libraries
#                                       come from the wheels, else the calling Python's, else the machine's CUDA
#   DEVICE=cpu benches/gpu/run.sh       the same without a GPU: tries the script
#
# PYTHON names another Python than python3, SECONDS_EACH how long each single run takes (3).
set -euo pipefail
python=${PYTHON:-python3}
device=${DEVICE:-cuda:0}
export ORT_DISABLE_TELEMETRY=1

fail() {
  echo "benches/gpu/run.sh: $1" >&2
  exit 1
}

wheels=
if [ $# -gt 0 ]; then
  wheels=$(realpath "$1")
  [ -d "$wheels" ] || fail "$1 is not a folder of wheels"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
cd "$(dirname "$0")/../.."

# wrk first: on a machine without a network it is what is most likely missing, and nothing can be measured without it.
if [ -n "$wheels" ] && [ -e "$wheels/wrk" ]; then
  mkdir "$work/bin"
  # A copy, because what was carried may have lost its mode.
  cp "$wheels/wrk" "$work/bin/carried"
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "%s" "$@"\n' \
    "$wheels" "$work/bin/carried" >"$work/bin/wrk"
  chmod +x "$work/bin/wrk" "$work/bin/carried"
  PATH=$work/bin:$PATH
fi
command -v wrk >/dev/null ||
  fail "wrk is not on PATH; install it (Debian: apt-get install wrk), or lay the program into the folder of wheels as WHEELS/wrk"
# It says its version and ends with 1; a library that it lacks is said by the loader.
wrk_says=$(wrk --version 2>&1 || true)
[[ $wrk_says == wrk* ]] || fail "wrk does not run: $wrk_says; its libraries may lie beside WHEELS/wrk"

if [ -n "$wheels" ]; then
  caller=$python
  install=("$work/venv/bin/python" -m pip install)
  if ! "$caller" -m venv "$work/venv" >/dev/null 2>&1; then
    # Debian's python3 has no ensurepip: the caller's pip installs into an environment without one.
    "$caller" -m venv --clear --without-pip "$work/venv"
    "$caller" -m pip --version >/dev/null || fail "$caller has neither ensurepip nor pip; name another Python with PYTHON"
    install=("$caller" -m pip install --target "$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')")
  fi
  python=$work/venv/bin/python
  # Without its dependencies where they are not in the folder: the provider's libraries may come from elsewhere.
  "${install[@]}" --quiet --disable-pip-version-check --no-index --no-deps "$wheels"/*.whl
  # The calling Python's NVIDIA libraries, each folder of them that the wheels did not bring.
  "$caller" - "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" <<'PYTHON'
import importlib.util
import pathlib
import sys

spec = importlib.util.find_spec("nvidia")
ours = pathlib.Path(sys.argv[1]) / "nvidia"
for place in spec.submodule_search_locations if spec else ():
    for folder in sorted(pathlib.Path(place).glob("*/lib")):
        link = ours / folder.parent.name
        if not link.exists():
            ours.mkdir(exist_ok=True)
            link.symlink_to(folder.parent)
PYTHON
fi

"$python" -c 'import headgate._native, numpy, onnx, onnxruntime' ||
  fail "$python lacks what the bench needs: headgate, onnxruntime-gpu, onnx and numpy, built for this Python"
if [ "$device" != cpu ] && command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
"$python" -m benches.gpu.compare --device "$device" --seconds "${SECONDS_EACH:-3}"
