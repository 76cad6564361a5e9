#!/usr/bin/env bash
# Gathers what a GPU host needs to run the tests: programs, stripped, with the libraries that it may lack, and the Python
# packages of PyPI that run.sh wants there (PYTHON_VERSION, default 3.12, is that host's).
# PORTABLE_BUILD, a build with -DCMAKE_CUDA_ARCHITECTURES=80-virtual, adds tests of the kernels of GPUs other than Hopper.
# usage: tests/gpu/bundle.sh BUILD_DIR [BUNDLE_DIR [PORTABLE_BUILD]]
set -euo pipefail
build=${1:?usage: bundle.sh BUILD_DIR [BUNDLE_DIR [PORTABLE_BUILD]]}
bundle=${2:-build-cuda-bundle}
rm -rf "$bundle"
mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/wheels"
for program in cuda_test sluiced sluiced_with_fault sluice sluice_bench; do
  [ -x "$build/bin/$program" ] || continue
  cp "$build/bin/$program" "$bundle/bin/"
  strip "$bundle/bin/$program"
  # All but the C library's own, which the host has.
  ldd "$bundle/bin/$program" | awk '$3 ~ /^\// {print $3}' |
    grep -v -E '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcublas[^/]*|libcuda[^/]*)\.so' |
    xargs -r -I{} cp -nL {} "$bundle/lib/"
done
for program in cuda_test sluice_bench; do
  [ -x "${3:-}/bin/$program" ] && strip -o "$bundle/bin/portable_$program" "$3/bin/$program"
done
pinned=$(grep -E '^(googleapis|grpcio)' "$(dirname "$0")/../requirements.txt")
python3 -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  -d "$bundle/wheels" $pinned 'protobuf>=7.35.1,<8' fla-core==0.5.2 flash-linear-attention==0.5.2
du -sh "$bundle"
