# shellcheck shell=bash
# Builds mmcv, sourced by tools/install.sh. The wheel is cached, by the versions of Python, torch
# and CUDA and the GPU architectures.

python_tag() { "$PY" -c 'import sys; print("cp%d%d" % sys.version_info[:2])'; }

# Is mmcv installed, with CUDA operators where there is a GPU or FORCE_CUDA=1?
has_mmcv() {
  "$PY" -c 'import os, sys, torch
from mmcv.ops import get_compiling_cuda_version
needed = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"
sys.exit(needed and not get_compiling_cuda_version()[:1].isdigit())' >/dev/null 2>&1
}

need_compiler() {
  local header
  command -v ${CXX:-c++} >/dev/null ||
    die 'mmcv must be built, and there is no C++ compiler. Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install'
  header=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] ||
    die "mmcv must be built, and there is no $header. Debian and Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel"
}

# Set WHEEL to the cached wheel; build it if there is none.
find_mmcv_wheel() {
  local cuda gpus folder
  cuda=$("$PY" -c 'import os, torch
needed = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"
print(torch.version.cuda or "none" if needed else "")')
  [ "$cuda" != none ] || die 'FORCE_CUDA=1 needs a torch with CUDA'
  KEY=$(python_tag)-torch$("$PY" -c 'import torch; print(torch.__version__.split("+")[0])')-cpu
  if [ -n "$cuda" ]; then
    gpus=$("$PY" -c 'import torch
gpus = {torch.cuda.get_device_capability(n) for n in range(torch.cuda.device_count())}
print(*("%d.%d" % gpu for gpu in sorted(gpus)), sep=";")')
    # PTX of 7.5 runs on every newer GPU: the driver compiles it at its first use.
    [ -n "$gpus" ] || export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-7.5+PTX}
    ARCHITECTURES=${TORCH_CUDA_ARCH_LIST:-$gpus}
    KEY=${KEY%cpu}cu$cuda-sm${ARCHITECTURES//[ ;,]/_}
    export FORCE_CUDA=1
  fi
  folder=$CACHE/${MMCV/==/-}-$KEY-$(uname -m)
  if ! ls "$folder"/*.whl >/dev/null 2>&1; then
    need_compiler
    mkdir -p "$folder" || die "cannot make $folder: set POLYNL_CACHE"
    BUILD=$(mktemp -d "$folder/build.XXXXXX")
    trap 'rm -rf "$BUILD"; kill "${TICKER:-}" 2>/dev/null || true' EXIT
    [ -z "$cuda" ] || find_nvcc "$cuda"
    build_mmcv
    mv "$BUILD"/*.whl "$folder"/
    say "the wheel is cached in $folder"
  fi
  WHEEL=$(echo "$folder"/*.whl)
}

build_mmcv() {
  # pip also runs setup.py, which fails with Python 3.13 and newer; only the source is needed.
  fetch_mmcv() {
    # shellcheck disable=SC2086
    TMPDIR=$BUILD "$PY" -m pip download --no-clean --no-deps --no-build-isolation \
      --no-binary "${MMCV%%=*}" "$MMCV" -d "$BUILD/sdist" ${PIP_ARGS:-} || ls "$BUILD"/pip-*/*/setup.py
  }
  step "fetching the source of $MMCV" fetch_mmcv
  local source std abi flags='-O2 -DNDEBUG -g0'
  source=$(dirname "$BUILD"/pip-*/*/setup.py)
  # torch sets the C++ standard that its headers need; mmcv sets an older one. And Python 3.13
  # changed locals().
  sed -i.orig -E "s/(, )?'-std=c\+\+1[47]'//g
    s/return locals\(\)\['__version__'\]/return __import__('runpy').run_path(version_file)['__version__']/" "$source/setup.py"
  # Most of the time goes to parsing torch's headers. GCC reads them precompiled if the flags are
  # the same. setuptools lets CFLAGS replace Python's own flags.
  export CFLAGS="$flags -include torch_headers.h" CPLUS_INCLUDE_PATH=$BUILD
  echo '#include <torch/types.h>' >"$BUILD/torch_headers.h"
  compile_headers() {
    std=$(grep -om1 'std=c++[0-9]*' "$("$PY" -c 'from torch.utils import cpp_extension as c; print(c.__file__)')")
    abi=$("$PY" -c 'import torch; print(int(torch._C._GLIBCXX_USE_CXX11_ABI))')
    [ "$abi" = 1 ] || flags+=" -D_GLIBCXX_USE_CXX11_ABI=$abi"
    # shellcheck disable=SC2046,SC2086  # several words each, without spaces in them
    ${CXX:-c++} -x c++-header $flags -fPIC "-$std" -DTORCH_API_INCLUDE_EXTENSION_H \
      -DTORCH_EXTENSION_NAME=_ext "$BUILD/torch_headers.h" -o "$BUILD/torch_headers.h.gch" \
      $("$PY" -c 'from torch.utils.cpp_extension import include_paths as i; print(*map("-I".__add__, i()))')
  }
  ! ${CXX:-c++} --version | grep -q 'Free Software' || step "precompiling torch's headers" compile_headers
  export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$("$PY" -c 'import os; print(os.cpu_count())')}
  # The sleep gives up the output: it may outlive its parent.
  while sleep 60 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    echo "   $(find "$source/build" -name '*.o' 2>/dev/null | wc -l) files compiled"
  done &
  TICKER=$!
  step "building $MMCV ($KEY) with $MAX_JOBS processes: ${TIME_NEEDED:-8 minutes of one core}" \
    "$PY" -m pip wheel -v --no-build-isolation --no-deps "$source" -w "$BUILD"
  kill $TICKER
}

# Set CUDA_HOME to a toolkit of torch's CUDA version: an installed one, or NVIDIA's from pip.
find_nvcc() {
  local wanted=$1 release packages=() name
  TIME_NEEDED='40 to 60 minutes of one core for each architecture'
  CUDA_HOME=$("$PY" -c 'from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or "")' 2>>"$LOG")
  # An nvcc on PATH may be a script outside its toolkit.
  [ -f "$CUDA_HOME/include/cuda_runtime.h" ] || CUDA_HOME=/usr/local/cuda
  release=$("$CUDA_HOME/bin/nvcc" --version 2>>"$LOG" | sed -n 's/.*release \([0-9.]*\).*/\1/p' || true)
  if [ "${release%%.*}" = "${wanted%%.*}" ]; then
    say "nvcc $release of $CUDA_HOME, for architectures $ARCHITECTURES"
  else
    [ "${wanted%%.*}" -ge 13 ] ||
      die "torch needs nvcc $wanted, got ${release:-none}: install that CUDA toolkit and set CUDA_HOME, or use a torch for CUDA 13, whose compiler pip can install"
    for name in cuda-nvcc cuda-crt cuda-cccl nvvm; do packages+=("nvidia-$name==$wanted.*"); done
    pip_install "NVIDIA's compiler $wanted, for architectures $ARCHITECTURES" "${packages[@]}"
    CUDA_HOME=$("$PY" -c 'import nvidia; print(list(nvidia.__path__)[0])')/cu${wanted%%.*}
  fi
  export CUDA_HOME
  # NVIDIA's packages have the library under its versioned name only.
  mkdir "$BUILD/lib"
  for name in "$CUDA_HOME"/lib/libcudart.so.*; do ln -sf "$name" "$BUILD/lib/libcudart.so"; done
  export LIBRARY_PATH=$BUILD/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
}
