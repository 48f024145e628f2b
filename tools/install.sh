#!/usr/bin/env bash
# Installs this project for development (`make install`): into the active virtual or conda
# environment, or into a new .venv. Keeps the torch, NumPy, OpenCV, mmcv, mmengine and mmdet that
# are there. mmcv is built once from source (tools/build_mmcv.sh) and cached.
#
#   STACK=default         versions to install (below); all but the default one in .venv-STACK
#   PYTHON=               Python of a new environment
#   TORCH=cpu             CPU build of torch (0.2 GB instead of 3 GB)
#   TORCH=torch==2.8.0    another torch
#   FORCE_CUDA=1          mmcv with CUDA operators, without a GPU on this machine
#   TORCH_CUDA_ARCH_LIST= its GPU architectures, "8.6;9.0" (default: those of this machine's GPUs)
#   PIP_ARGS=             options of every pip call, for example a mirror
#   MAX_JOBS=             compiler processes (default: all cores; each needs 1.5 GB, with CUDA 4 GB)
#   POLYNL_CACHE=         folder of the built wheels (default: ~/.cache/polynl_mmdet)
set -euo pipefail
cd "$(dirname "$0")/.."

case ${STACK:=default} in #    Python     torch  NumPy   mmcv mmengine mmdet
  oldest)  VERSIONS=(python3.9  2.0.1  'numpy<2' mmcv==2.0.1 mmengine==0.8.5 mmdet==3.1.0) ;;
  common)  VERSIONS=(python3.11 2.1.2  'numpy<2' mmcv==2.1.0 mmengine==0.10.7 mmdet==3.3.0) ;;
  default) VERSIONS=(python3    2.13.0 numpy     mmcv==2.1.0 mmengine==0.10.7 mmdet==3.3.0) ;;
  newest)  VERSIONS=(python3.14 2.15.0 numpy     mmcv==2.1.0 mmengine==0.10.7 mmdet==3.3.0) ;;
  # Forks with the same import names.
  onedl)   VERSIONS=(python3.11 2.9.0  numpy     onedl-mmcv==2.3.6 onedl-mmengine==0.10.12
                     onedl-mmdetection==3.5.1) ;;
  *) echo "error: got STACK=$STACK, expected oldest, common, default, newest or onedl" >&2; exit 1 ;;
esac
MMCV=${VERSIONS[3]} MMENGINE=${VERSIONS[4]} MMDET=${VERSIONS[5]}
CACHE=${POLYNL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polynl_mmdet}

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# Run a command with its output in the log; show the end of it on failure.
step() {
  say "$1" | tee -a "$LOG"
  "${@:2}" >>"$LOG" 2>&1 || { tail -n 15 "$LOG" | cut -c 1-300 >&2; die "$1: failed, see $LOG"; }
}
pip_install() {
  # shellcheck disable=SC2086  # PIP_ARGS are several words
  step "installing $1" "$PY" -m pip install --disable-pip-version-check --no-input \
    -c "$CONSTRAINTS" ${PIP_ARGS:-} "${@:2}"
}
. tools/build_mmcv.sh

if [ "$STACK" = default ] && [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  PY=$(command -v python) || die 'the active environment has no python'
else
  VENV=.venv
  [ "$STACK" = default ] || VENV=.venv-$STACK
  if [ ! -x "$VENV/bin/python" ]; then
    BASE=${PYTHON:-${VERSIONS[0]}}
    "$BASE" -c '' 2>/dev/null || [ -n "${PYTHON:-}" ] || BASE=python3
    say "making $VENV with $("$BASE" --version)"
    "$BASE" -m venv "$VENV" >/dev/null ||
      { rm -rf "$VENV"; die "$BASE has no venv (Debian and Ubuntu: apt-get install python3-venv)"; }
    touch "$VENV/.made-by-make" # `make clean` removes no other environment
    "$VENV/bin/python" -m pip install -q --upgrade pip
  fi
  PY=$PWD/$VENV/bin/python
fi
PREFIX=$("$PY" -c 'import sys; print(sys.prefix)')

# Nothing to do if nothing has changed.
STAMP=$PREFIX/.polynl_mmdet-installed
STATE=$(cat tools/install.sh tools/build_mmcv.sh setup.py pyproject.toml | cksum; pwd)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$STATE" ] && has_mmcv; then
  exit 0
fi

LOG=$PREFIX/polynl_mmdet-install.log CONSTRAINTS=$PREFIX/.polynl_mmdet-constraints
: >"$LOG" || die "$PREFIX is not writable"
say "installing into $PREFIX ($("$PY" --version)), log: $LOG"
"$PY" -c 'import mmcv' 2>/dev/null || ls "$CACHE/${MMCV/==/-}-$(python_tag)"-*/*.whl >/dev/null 2>&1 ||
  need_compiler

# mmengine imports pkg_resources, which setuptools 81 removed.
printf '%s\n' 'setuptools<81' "${VERSIONS[2]}" >"$CONSTRAINTS"
"$PY" -m pip list --format=freeze 2>/dev/null |
  grep -iE '^(torch|numpy|opencv.*|(onedl-)?mm(cv|engine|det|detection))==' >>"$CONSTRAINTS" || true
pip_install 'build tools' 'setuptools>=64' wheel ninja psutil packaging

if "$PY" -c 'import torch' 2>>"$LOG"; then
  say "keeping torch $("$PY" -c 'import torch; print(torch.__version__)')"
elif [ "${TORCH:-}" = cpu ]; then
  pip_install 'uv, which finds the CPU builds of torch' uv
  step "installing torch ${VERSIONS[1]} for the CPU" "$PY" -m uv pip install --python "$PY" \
    -c "$CONSTRAINTS" --torch-backend=cpu "torch==${VERSIONS[1]}" numpy
else
  pip_install "torch, up to 3 GB (TORCH=cpu: 0.2 GB)" "${TORCH:-torch==${VERSIONS[1]}}" numpy
fi

# The mm packages require opencv-python, which needs the libraries of a desktop. Any of the four
# OpenCV packages serves: their requirements are installed without it (and without imaug's).
if ! "$PY" -c 'import cv2; cv2.imread' 2>>"$LOG"; then
  ! grep -i '^opencv' "$CONSTRAINTS" || die "$(tail -n 1 "$LOG"). Install that library (Debian and Ubuntu: apt-get install libxcb1 libgl1 libglib2.0-0), or remove this package: the headless one is then installed"
  pip_install 'OpenCV, headless' opencv-python-headless
fi
MISSING=()
"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mmengine"))' || MISSING+=("$MMENGINE")
"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mmdet"))' || MISSING+=("$MMDET")
if [ ${#MISSING[@]} != 0 ]; then
  [ "$STACK" != onedl ] || MISSING+=(imaug)
  pip_install "${MISSING[*]}" --no-deps "${MISSING[@]}"
  "$PY" - "${MISSING[@]%%=*}" >"$PREFIX/.polynl_mmdet-requirements" <<'PYTHON'
import importlib.metadata, sys
for name in sys.argv[1:]:
    for line in importlib.metadata.requires(name):
        if not line.startswith(('opencv', 'imaug', 'imagecorruptions')) and 'extra ==' not in line:
            print(line)
PYTHON
  pip_install 'their requirements' -r "$PREFIX/.polynl_mmdet-requirements"
fi
if "$PY" -c 'import sys; sys.exit(sys.version_info < (3, 14))'; then
  # Python 3.14 has no pkgutil.find_loader.
  FILE=$("$PY" -c 'import mmengine; print(mmengine.__path__[0])')/utils/dl_utils/misc.py
  ! grep -q pkgutil.find_loader "$FILE" || step "fixing pkgutil.find_loader in $FILE" \
    sed -i.orig 's/pkgutil\.find_loader(/pkgutil.importlib.util.find_spec(/' "$FILE"
fi

if "$PY" -c 'import mmcv, mmcv.ops' >>"$LOG" 2>&1; then
  say "keeping mmcv $("$PY" -c 'import mmcv; print(mmcv.__version__)')"
  has_mmcv || echo "warning: it has no CUDA operators: NMS and RoIAlign will fail on the GPU. To build them: $PY -m pip uninstall -y ${MMCV%%=*} && make install" >&2
else
  find_mmcv_wheel
  pip_install "${WHEEL##*/}" --no-deps --force-reinstall "$WHEEL"
fi
pip_install 'polynl_mmdet with its tests' --editable '.[tests,lint]' --no-build-isolation
step 'importing it' "$PY" -c 'import polynl_mmdet, mmdet, mmcv.ops'
[ -z "${WHEEL:-}" ] || has_mmcv || die "mmcv was built without CUDA operators: see $LOG"
printf '%s' "$STATE" >"$STAMP"
say "installed in $PREFIX"
