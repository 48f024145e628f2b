#!/usr/bin/env bash
# Installs this project for development: `make install` runs it.
#
# Uses the active virtual or conda environment, or makes .venv. Keeps the torch, OpenCV, mmcv,
# mmengine and mmdet that are there. mmcv is built once (tools/build_mmcv.sh).
#
# Variables:
#   TORCH=cpu             torch without its 3 GB of CUDA libraries
#   TORCH=torch==2.13.0   the torch to install where there is none
#   FORCE_CUDA=1          mmcv with CUDA operators although this machine has no GPU
#   TORCH_CUDA_ARCH_LIST= for which GPUs: 8.0, or "8.6;9.0" (default: those of this machine)
#   STACK=official        or onedl: the forks of mmcv, mmengine and mmdet, always in .venv-onedl,
#                         because both families have the same import names
#   PYTHON=python3        the Python that .venv is made with
#   PIP_ARGS=             more options for every pip call (a mirror, say)
#   MAX_JOBS=             compiler processes while mmcv is built (default: all cores)
#   POLYNL_CACHE=         folder of the built wheels (default: ~/.cache/polynl_mmdet)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/install_steps.sh
. tools/build_mmcv.sh

STACK=${STACK:-official}
case $STACK in
  official)
    MMCV=mmcv==2.1.0 MMENGINE=mmengine==0.10.7 MMDET=mmdet==3.3.0
    MMCV_SHA256=d387bcab66b467479b6660310e23746cfc79c6e57acf04094680adb499a5cd3f ;;
  onedl)
    MMCV=onedl-mmcv==2.3.6 MMENGINE=onedl-mmengine==0.10.12 MMDET=onedl-mmdetection==3.5.1
    MMCV_SHA256=8704978a3d492b15cc058742ac3165bd1bcc2dd20678da9ed39e0da3048e3045 ;;
  *) die "STACK=$STACK is not known, accepted: official, onedl" ;;
esac
TORCH=${TORCH:-torch==2.13.0}
SETUPTOOLS='setuptools>=77.0.3,<81' # mmengine imports pkg_resources, which 81 has no more
CACHE=${POLYNL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polynl_mmdet}

if [ "$STACK" = official ] && [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  BASE=python
  command -v python >/dev/null || die 'the active environment has no python'
else
  BASE=${PYTHON:-python3}
  command -v "$BASE" >/dev/null || die "no $BASE: install Python 3.10 or newer, or set PYTHON"
fi
"$BASE" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$("$BASE" --version) is too old, 3.10 or newer is needed. Name one: PYTHON=python3.12 make install, or activate its environment"
if [ "$BASE" = python ]; then
  PY=$(command -v python)
else
  VENV=.venv
  [ "$STACK" = official ] || VENV=.venv-$STACK
  if [ ! -x "$VENV/bin/python" ]; then
    say "making $VENV with $("$BASE" --version)"
    "$BASE" -m venv "$VENV" >/dev/null ||
      { rm -rf "$VENV"; die "$BASE has no venv (Debian and Ubuntu: apt-get install python3-venv)"; }
    touch "$VENV/.made-by-make" # `make clean` removes no other environment
  fi
  PY=$PWD/$VENV/bin/python
fi
PREFIX=$("$PY" -c 'import sys; print(sys.prefix)')

# An unchanged installation takes no time.
STAMP=$PREFIX/.polynl_mmdet-installed
STATE=$(cat tools/*install*.sh tools/build_mmcv.sh setup.py polynl_mmdet_lookup.pth | cksum; pwd)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$STATE" ] && mmcv_fits 'import polynl_mmdet, mmdet'; then
  exit 0
fi

LOG=$PREFIX/polynl_mmdet-install.log
: >"$LOG" || die "$PREFIX cannot be written"
say "installing for $("$PY" --version) into $PREFIX, everything is logged in $LOG"
has_mmcv || ls "$CACHE/${MMCV/==/-}-$(python_tag)"-*/*.whl >/dev/null 2>&1 || need_compiler

pip_step 'build tools' install "$SETUPTOOLS" wheel ninja psutil packaging

# The mm packages ask for opencv-python by name, which needs libraries of a desktop. Any of the
# four OpenCV packages serves, so that theirs is left out where their requirements are installed
# below: those of imaug too, which the forks' mmdet imports, and which asks for two of them at once.
if "$PY" -c 'import cv2; cv2.imread' 2>>"$LOG"; then
  say "keeping OpenCV $("$PY" -c 'import cv2; print(cv2.__version__)')"
else
  WHY=$(tail -n 1 "$LOG")
  OPENCV=$("$PY" -m pip list --format=freeze 2>>"$LOG" | sed -n 's/^\(opencv[^=]*\)=.*/\1/p')
  [ -z "$OPENCV" ] ||
    die "${OPENCV//$'\n'/ } is installed but cannot be imported ($WHY). Either install what it misses (Debian and Ubuntu: apt-get install libxcb1 libgl1 libglib2.0-0), or $PY -m pip uninstall -y ${OPENCV//$'\n'/ } && make install, which takes the headless one"
  pip_step 'OpenCV, headless' install opencv-python-headless
fi

if "$PY" -c 'import torch' 2>>"$LOG"; then
  say "keeping torch $("$PY" -c 'import torch; print(torch.__version__)')"
elif [ "$TORCH" = cpu ]; then
  pip_step 'uv, which knows where the CPU builds of torch are' install uv
  step 'torch 2.13.0 for the CPU, 0.2 GB' \
    "$PY" -m uv pip install --python "$PY" --torch-backend=cpu torch==2.13.0
else
  pip_step "$TORCH, up to 3 GB with its CUDA libraries (TORCH=cpu: 0.2 GB)" \
    install "$TORCH" "$SETUPTOOLS" numpy
fi

MISSING=()
"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mmengine"))' || MISSING+=("$MMENGINE")
"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mmdet"))' || MISSING+=("$MMDET")
if [ ${#MISSING[@]} != 0 ]; then
  [ "$STACK" = official ] || MISSING+=(imaug)
  pip_step "${MISSING[*]}" install --no-deps "${MISSING[@]}"
  "$PY" - "${MISSING[@]%%=*}" >"$PREFIX/.polynl_mmdet-requirements" <<'PYTHON'
import importlib.metadata, sys
for name in sys.argv[1:]:
    for line in importlib.metadata.requires(name):
        if not line.startswith(('opencv', 'imaug', 'imagecorruptions')) and 'extra ==' not in line:
            print(line)
PYTHON
  pip_step 'what they require' install -r "$PREFIX/.polynl_mmdet-requirements"
fi

if python_is_at_least 14; then
  mend "$("$PY" -c 'import mmengine; print(mmengine.__path__[0])')/utils/dl_utils/misc.py" \
    "pkgutil.find_loader('mmcv._ext')" "pkgutil.importlib.util.find_spec('mmcv._ext')"
fi

if has_mmcv; then
  say "keeping mmcv $("$PY" -c 'import mmcv; print(mmcv.__version__)')"
  mmcv_fits || warn "it has no CUDA operators: training on a GPU will stop in NMS. To build them: $PY -m pip uninstall -y ${MMCV%%=*} && make install"
else
  find_mmcv_wheel
  pip_step "${WHEEL##*/} from the cache" install --no-deps --force-reinstall "$WHEEL"
fi

pip_step 'polynl_mmdet with its tests and tools' \
  install "$SETUPTOOLS" --editable '.[tests,lint]' --no-build-isolation
step 'importing it' "$PY" -c 'import polynl_mmdet, mmdet, mmcv.ops'
# Not before: mmcv imports mmengine, and mmengine what was installed last.
[ -z "${WHEEL:-}" ] || mmcv_fits ||
  die "the mmcv that was built has no CUDA operators, though torch is for CUDA: see $LOG"
printf '%s' "$STATE" >"$STAMP"
say "installed in $PREFIX"
