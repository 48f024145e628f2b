#!/usr/bin/env bash
# Installs this project for development: `make install` runs it.
#
# Uses the active virtual or conda environment, or makes .venv. Keeps a torch that is already
# there. Builds mmcv once: the wheel stays in a per-user cache, keyed by Python, torch and CUDA.
#
# Variables:
#   STACK=official        or onedl: the forks of mmcv, mmengine and mmdet, always in .venv-onedl,
#                         because both families have the same import names
#   TORCH=torch==2.13.0   what to install where torch is missing
#   PIP_ARGS=             more options for every pip call (an index for CPU or CUDA builds, say)
#   MAX_JOBS=             compiler processes while mmcv is built (default: all cores)
#   POLYNL_CACHE=         folder of the built wheels (default: ~/.cache/polynl_mmdet)
set -euo pipefail
cd "$(dirname "$0")/.."

STACK=${STACK:-official}
case $STACK in
  official) MMCV=mmcv==2.1.0 MMENGINE=mmengine==0.10.7 MMDET=mmdet==3.3.0 ;;
  onedl) MMCV=onedl-mmcv==2.3.6 MMENGINE=onedl-mmengine==0.10.12 MMDET=onedl-mmdetection==3.5.1 ;;
  *) printf 'error: STACK=%s is not known, accepted: official, onedl\n' "$STACK" >&2; exit 1 ;;
esac
TORCH=${TORCH:-torch==2.13.0}
SETUPTOOLS='setuptools>=77.0.3,<81'

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

if [ "$STACK" = official ] && [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  PY=$(command -v python) || die 'the active environment has no python'
else
  BASE=${PYTHON:-python3}
  command -v "$BASE" >/dev/null || die "no $BASE: install Python 3.10 or newer, or set PYTHON"
  VENV=.venv
  [ "$STACK" = official ] || VENV=.venv-$STACK
  if [ ! -x "$VENV/bin/python" ]; then
    say "making $VENV with $("$BASE" --version)"
    "$BASE" -m venv "$VENV" || die "$BASE -m venv failed: install the venv package of your Python"
    touch "$VENV/.made-by-make" # `make clean` removes no other environment
  fi
  PY=$PWD/$VENV/bin/python
fi
"$PY" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$("$PY" --version) is too old: Python 3.10 or newer is needed"

# An unchanged installation takes no time.
STAMP=$("$PY" -c 'import sys; print(sys.prefix)')/.polynl_mmdet-installed
STATE=$(cat tools/install.sh setup.py polynl_mmdet_lookup.pth | cksum; pwd)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$STATE" ] &&
  "$PY" -c 'import polynl_mmdet, mmdet' >/dev/null 2>&1; then
  exit 0
fi

pip() { "$PY" -m pip "$@" --disable-pip-version-check --quiet ${PIP_ARGS:-}; }

say 'build tools'
pip install "$SETUPTOOLS" wheel ninja psutil packaging
if "$PY" -c 'import torch' 2>/dev/null; then
  say "keeping torch $("$PY" -c 'import torch; print(torch.__version__)')"
else
  say "installing $TORCH"
  pip install "$TORCH" "$SETUPTOOLS" numpy
fi

has_mmcv() { "$PY" -c 'import mmcv, mmcv.ops' >/dev/null 2>&1; }
if has_mmcv; then
  say "keeping mmcv $("$PY" -c 'import mmcv; print(mmcv.__version__)')"
else
  KEY=$("$PY" -c 'import platform, sys, torch
print("cp%d%d-torch%s-%s-%s" % (*sys.version_info[:2], torch.__version__.split("+")[0],
    "cu" + torch.version.cuda if torch.version.cuda else "cpu", platform.machine()))')
  CACHE=${POLYNL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polynl_mmdet}/${MMCV/==/-}-$KEY
  if ! ls "$CACHE"/*mmcv-*.whl >/dev/null 2>&1; then
    CXX_FOUND=${CXX:-$(command -v c++ || command -v g++ || true)}
    [ -n "$CXX_FOUND" ] && command -v "${CXX_FOUND%% *}" >/dev/null ||
      die 'no C++ compiler: mmcv has no wheel for this torch and must be built. Install one (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install) and run make install again'
    HEADER=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -f "$HEADER" ] ||
      die "no $HEADER: mmcv must be built and needs Python's headers (Debian and Ubuntu: apt-get install python3-dev)"
    say "building $MMCV for $KEY, about 10 minutes on two cores; kept in $CACHE"
    mkdir -p "$CACHE"
    BUILD=$(mktemp -d "$CACHE/build.XXXXXX")
    trap 'rm -rf "$BUILD"' EXIT
    export MAX_JOBS=${MAX_JOBS:-$("$PY" -c 'import os; print(os.cpu_count())')}
    LOG=$CACHE/build.log
    MMCV_WITH_OPS=1 "$PY" -m pip wheel --disable-pip-version-check ${PIP_ARGS:-} \
      --no-build-isolation --no-deps "$MMCV" -w "$BUILD" >"$LOG" 2>&1 ||
      die "building mmcv failed, see the end of $LOG"
    mv "$BUILD"/*mmcv-*.whl "$CACHE"/
  fi
  say "installing $MMCV from $CACHE"
  pip install "$CACHE"/*mmcv-*.whl
fi

say 'mmengine and mmdet'
"$PY" -c 'import mmengine' 2>/dev/null || pip install "$MMENGINE"
"$PY" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("mmdet") is None)' ||
  pip install "$MMDET"

say 'polynl_mmdet with its tests and tools'
pip install "$SETUPTOOLS" --editable '.[tests,lint]' --no-build-isolation
"$PY" -c 'import polynl_mmdet' || die 'polynl_mmdet does not import, see above'
printf '%s' "$STATE" >"$STAMP"
say "installed in $("$PY" -c 'import sys; print(sys.prefix)')"
