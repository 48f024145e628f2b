# shellcheck shell=bash
# How tools/install.sh gets mmcv, which has no wheel for current torch: built once from its official
# sdist. The wheel stays in a per-user cache, keyed by Python, torch, CUDA and architectures.

python_tag() { "$PY" -c 'import sys; print("cp%d%d" % sys.version_info[:2])'; }
python_is_at_least() { "$PY" -c "import sys; sys.exit(sys.version_info < (3, $1))"; }
has_mmcv() { "$PY" -c 'import mmcv, mmcv.ops' >>"$LOG" 2>&1; }

# Is mmcv there, with CUDA operators where there is a GPU or FORCE_CUDA=1? $1: more to be run.
mmcv_fits() {
  "$PY" -c "${1:-}
import os, sys, torch
from mmcv.ops import get_compiling_cuda_version
wanted = torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1'
sys.exit(wanted and not get_compiling_cuda_version()[:1].isdigit())" >/dev/null 2>&1
}

need_compiler() {
  local cxx header
  cxx=${CXX:-$(command -v c++ || command -v g++ || true)}
  [ -n "$cxx" ] && command -v "${cxx%% *}" >/dev/null ||
    die 'no C++ compiler, and mmcv must be built. Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install'
  header=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] ||
    die "no $header, and mmcv must be built. Debian and Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel"
}

# Set WHEEL to the wheel in the cache, after building it if need be.
find_mmcv_wheel() {
  local cuda gpus folder
  cuda=$("$PY" -c 'import os, torch
wanted = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"
print(torch.version.cuda or "none" if wanted else "")')
  [ "$cuda" != none ] || die 'FORCE_CUDA=1, but torch is built without CUDA: install one that is, first'
  KEY=$(python_tag)-torch$("$PY" -c 'import torch; print(torch.__version__.split("+")[0])')-cpu
  if [ -n "$cuda" ]; then
    gpus=$("$PY" -c 'import torch
gpus = {torch.cuda.get_device_capability(n) for n in range(torch.cuda.device_count())}
print(*("%d.%d" % gpu for gpu in sorted(gpus)), sep=";")')
    # torch takes those of the GPUs by itself. Code for 7.5 as PTX runs on every newer GPU: the
    # driver compiles it again at its first use.
    [ -n "$gpus" ] || export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-7.5+PTX}
    ARCHITECTURES=${TORCH_CUDA_ARCH_LIST:-$gpus}
    KEY=${KEY%cpu}cu$cuda-sm${ARCHITECTURES//[ ;,]/_}
    export FORCE_CUDA=1
  fi
  folder=$CACHE/${MMCV/==/-}-$KEY-$(uname -m)
  if ! ls "$folder"/*.whl >/dev/null 2>&1; then
    need_compiler
    mkdir -p "$folder" || die "$folder cannot be made: set POLYNL_CACHE to another folder"
    BUILD=$(mktemp -d "$folder/build.XXXXXX") || die "$folder cannot be written"
    clean_up() { rm -rf "$BUILD"; }
    [ -z "$cuda" ] || find_nvcc "$cuda"
    build_mmcv
    mv "$BUILD"/*.whl "$folder"/
    clean_up
    say "the wheel ($(du -h "$folder"/*.whl | cut -f 1)) is kept in $folder"
  fi
  WHEEL=$(echo "$folder"/*.whl)
}

build_mmcv() {
  # pip checks the checksum and unpacks. It also runs setup.py, which fails with Python 3.13 and
  # newer: the unpacked source is wanted alone.
  printf '%s --hash=sha256:%s\n' "$MMCV" "$MMCV_SHA256" >"$BUILD/sdist.txt"
  fetch_mmcv() {
    TMPDIR=$BUILD "$PY" -m pip download --no-clean --no-deps --no-build-isolation \
      --no-binary "${MMCV%%=*}" -r "$BUILD/sdist.txt" -d "$BUILD/sdist" ${PIP_ARGS:-} ||
      ls "$BUILD"/pip-*/*/setup.py
  }
  step "the source of $MMCV, its checksum verified" fetch_mmcv
  local source
  source=$(dirname "$BUILD"/pip-*/*/setup.py)
  if python_is_at_least 13; then
    mend "$source/setup.py" "return locals()['__version__']" \
      "return __import__('runpy').run_path(version_file)['__version__']"
  fi
  # Nine tenths of the compiler's time go to reading torch's headers: GCC reads them once, into a
  # .gch file that it takes where the flags are the same. Another compiler reads them as ever.
  # setuptools lets CFLAGS replace Python's own flags, so that these are all there are.
  local flags='-O2 -DNDEBUG -g0'
  export CFLAGS="$flags -include torch_headers.h" CPLUS_INCLUDE_PATH=$BUILD
  echo '#include <torch/types.h>' >"$BUILD/torch_headers.h"
  compile_headers() {
    # shellcheck disable=SC2046,SC2086  # several words each, without spaces in them
    ${CXX:-c++} -x c++-header $flags -fPIC -std=c++17 -DTORCH_API_INCLUDE_EXTENSION_H \
      -DTORCH_EXTENSION_NAME=_ext "$BUILD/torch_headers.h" -o "$BUILD/torch_headers.h.gch" \
      $("$PY" -c 'from torch.utils.cpp_extension import include_paths as i; print(*map("-I".__add__, i()))')
  }
  ! ${CXX:-c++} --version | grep -q 'Free Software' || step "torch's headers" compile_headers
  export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$("$PY" -c 'import os; print(os.cpu_count())')}
  progress() {
    local ninja=("$source"/build/temp.*/build.ninja)
    [ ! -f "${ninja[0]}" ] ||
      echo ", compiled: $(find "$source/build" -name '*.o' | wc -l) of $(grep -c '^build ' "${ninja[0]}")"
  }
  pip_step "building $MMCV ($KEY) with $MAX_JOBS processes, ${TIME_NEEDED:-about 8 minutes of one core}" \
    wheel -v --no-build-isolation --no-deps "$source" -w "$BUILD"
  progress() { :; }
}

# Set CUDA_HOME to a toolkit that fits torch: one that is there, or NVIDIA's compiler from pip.
find_nvcc() {
  local wanted=$1 release packages=() name
  TIME_NEEDED='40 to 60 minutes of one core for an architecture'
  CUDA_HOME=$("$PY" -c 'from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or "")' 2>>"$LOG")
  # An nvcc on PATH may be a script that stands apart from its toolkit.
  [ -f "$CUDA_HOME/include/cuda_runtime.h" ] || CUDA_HOME=/usr/local/cuda
  release=$("$CUDA_HOME/bin/nvcc" --version 2>>"$LOG" | sed -n 's/.*release \([0-9.]*\).*/\1/p' || true)
  if [ "${release%%.*}" = "${wanted%%.*}" ]; then
    say "nvcc $release of $CUDA_HOME, for architectures $ARCHITECTURES"
  else
    [ -z "$release" ] || say "nvcc $release of $CUDA_HOME does not fit torch's CUDA $wanted"
    [ "${wanted%%.*}" -ge 13 ] ||
      die "torch needs nvcc $wanted: install that CUDA toolkit and set CUDA_HOME, or take a torch for CUDA 13, whose compiler pip can install"
    for name in nvcc crt cccl; do packages+=("nvidia-cuda-$name==$wanted.*"); done
    pip_step "NVIDIA's compiler $wanted, for architectures $ARCHITECTURES" \
      install "${packages[@]}" "nvidia-nvvm==$wanted.*"
    CUDA_HOME=$("$PY" -c 'import nvidia; print(list(nvidia.__path__)[0])')/cu${wanted%%.*}
  fi
  export CUDA_HOME
  # NVIDIA's packages have the library under its full name alone.
  mkdir "$BUILD/lib"
  for name in "$CUDA_HOME"/lib/libcudart.so.*; do ln -sf "$name" "$BUILD/lib/libcudart.so"; done
  export LIBRARY_PATH=$BUILD/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
}
