#!/usr/bin/env bash
# Every test of the project, on a machine with nothing but apt. Usage: tests/run.sh [--fast|--asan|--tsan|--fuzz]
#   (nothing)  everything below, and quickstart, format, lint and metrics checks
#   --fast     Release build, C++ tests labelled fast or golden, end-to-end and deployment tests that are not slow
#   --asan     AddressSanitizer and UndefinedBehaviorSanitizer: C++ tests and a part of the end-to-end tests
#   --tsan     ThreadSanitizer: kernels, engine, state files and the server's core
#   --fuzz     every fuzz target over its corpus, FUZZ_SECONDS (default 20) each
# Environment: FUZZ_SECONDS, PYTHON (default python3).
set -uo pipefail
cd "$(dirname "$0")/.."

# A floor, so that tests cannot disappear unnoticed. Raise it when you add some.
min_cpp_tests=105

mode=${1:-all}
case "$mode" in
  all | --fast | --asan | --tsan | --fuzz) ;;
  -h | --help) sed -n '2,8s/^# //p' "$0"; exit 0 ;;
  *) echo "tests/run.sh: unknown argument '$mode'" >&2; exit 2 ;;
esac

fuzz_seconds=${FUZZ_SECONDS:-20}
jobs=$(nproc)
python=.venv/bin/python
export SLUICE_BIN_DIR=$PWD/build/bin
# A process must end with a failure when a sanitizer reports. Memory that cannot be had is not a report: tests ask for it.
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:allocator_may_return_null=1
summary=()
failed=0

# stage NAME COMMAND...: runs it, notes its seconds and whether it passed. A failed stage does not stop the others.
stage() {
  local name=$1 started=$SECONDS result=ok code=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" || code=$?
  if [ "$code" != 0 ]; then
    result="FAILED (exit code $code)"
    failed=1
  fi
  printf '=== %s: %s, %s s\n' "$name" "$result" "$((SECONDS - started))"
  summary+=("$(printf '%-34s %5s s  %s' "$name" "$((SECONDS - started))" "$result")")
  return "$code"
}

finish() {
  printf '\n=== summary (%s s)\n' "$SECONDS"
  printf '%s\n' "${summary[@]}"
  [ "$failed" = 0 ] && echo "all stages passed" || echo "SOME STAGES FAILED"
  exit "$failed"
}

# What is needed and not there: apt packages where we may install them, Python packages into .venv.
install() {
  if command -v dpkg-query > /dev/null; then
    local wanted missing
    wanted=$(cat deploy/apt-packages.txt tests/apt-packages.txt | grep -v '^#')
    missing=$(comm -13 <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2> /dev/null |
                           sed -n 's/^installed //p' | sort -u) <(printf '%s\n' $wanted | sort -u))
    if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
      echo "installing:" $missing
      mkdir -p build
      { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        > build/apt.log 2>&1 || { tail -n 30 build/apt.log; return 1; }
    elif [ -n "$missing" ]; then
      echo "these packages are missing; install them with: sudo apt-get install" $missing
      return 1
    fi
  fi
  if ! cmp -s tests/requirements.txt .venv/requirements.txt; then
    # A folder made by another Python, or half made, is not repaired but made anew.
    "${PYTHON:-python3}" -m venv --clear .venv &&
      .venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt &&
      cp tests/requirements.txt .venv/requirements.txt
  fi
}

# configure DIR OPTIONS...
configure() {
  local dir=$1
  shift
  local generator=()
  [ -f "$dir/CMakeCache.txt" ] || generator=(-G Ninja)
  mkdir -p "$dir"
  cmake -S . -B "$dir" "${generator[@]}" "$@" > "$dir/configure.log" 2>&1 || { cat "$dir/configure.log"; return 1; }
}

# compile DIR ARGUMENTS...: the compiler's output is shown when it fails.
compile() {
  local dir=$1
  shift
  cmake --build "$dir" -j "$jobs" "$@" > "$dir/build.log" 2>&1 && return
  grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking|Generating|Running)' "$dir/build.log" | tail -n 80
  return 1
}

# -O1: half the time to compile, and the time to run is the sanitizers'. clang: for libFuzzer, and it compiles faster.
# No precompiled headers: they hold paths and times of the clone, so that another clone's compiler cache has nothing for it.
sanitized=(-DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DCMAKE_CXX_COMPILER=clang++-14)
release_build() { configure build -DCMAKE_BUILD_TYPE=Release && compile build; }
# The Release build has Hopper's kernels; this compiles what other GPUs run.
kernels_build() {
  if [ ! -x "$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc)" ]; then
    echo "no nvcc: no CUDA code was compiled"
    return 0
  fi
  configure build-sm80 -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES=80-real -DSLUICE_SERVER=OFF &&
    compile build-sm80 --target sluice_cuda_kernels
}
# One build for the tests and for the fuzz targets. asan_build [--target TARGET]
asan_build() {
  configure build-asan "${sanitized[@]}" -DSLUICE_SANITIZE=address -DSLUICE_FUZZ=ON && compile build-asan "$@"
}
tsan_build() {
  configure build-tsan "${sanitized[@]}" -DSLUICE_SANITIZE=thread -DSLUICE_SERVER=OFF &&
    compile build-tsan --target thread_tests
}

# cpp_tests DIR ARGUMENTS...
cpp_tests() {
  local dir=$1
  shift
  ctest --test-dir "$dir" --output-on-failure --timeout 600 -j "$jobs" "$@"
}

# At least that many test programs in the Release build.
test_floor() {
  local count
  count=$(ctest --test-dir build -N | sed -n 's/^Total Tests: //p')
  echo "$count C++ test programs, at least $min_cpp_tests expected"
  [ "$count" -ge "$min_cpp_tests" ]
}

format_check() {
  local clang_format
  clang_format=$(command -v clang-format-14 || command -v clang-format) || { echo "no clang-format"; return 1; }
  find kernels engine server client tests \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 "$clang_format" --dry-run -Werror
}

# What gla computes to the bit is recorded once for each instruction set, from the commit that defines it.
frozen_records() { bash tests/goldens/frozen/record.sh --missing build/bin/frozen_bits_test; }

api_lint() { (cd proto && ../.venv/bin/buf lint); }

# pytest's exit code 5 (no test found) is a failure too.
end_to_end() { "$python" -m pytest -p no:cacheprovider -q -ra --durations=8 "$@"; }

python_tests() {
  local files=()
  shopt -s nullglob
  files=(tests/engine/tokenizer/*_test.py tests/engine/tokenizer/test_*.py)
  end_to_end tests/e2e tests/client/python "${files[@]}"
}

# Not the files whose C++ is the same in the sanitized C++ tests, or whose subject is the Release binaries: for time.
asan_end_to_end() {
  SLUICE_TEST_SCALE=0.1 SLUICE_BIN_DIR=$PWD/build-asan/bin end_to_end -m "not slow" tests/e2e \
    --ignore=tests/e2e/test_{bench,capacity,families,hardening,metrics,run}.py
}

# fuzz_one TARGET: what it finds goes to the first corpus folder; the committed corpus is only read.
fuzz_one() {
  local name code=0
  name=$(basename "$1" _fuzz)
  mkdir -p "build-asan/fuzz/$name"
  "$1" -max_total_time="$fuzz_seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="build-asan/fuzz/crash-$name-" "build-asan/fuzz/$name" "tests/fuzz/corpus/$name" \
    > "build-asan/fuzz/$name.log" 2>&1 || code=$?
  if [ "$code" = 0 ]; then
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "build-asan/fuzz/$name.log") executions, no crash"
  else
    echo "$name: FAILED (exit code $code)"
    tail -n 40 "build-asan/fuzz/$name.log"
  fi
  return "$code"
}

# Two targets at a time: each has one thread.
fuzz() {
  local target running=() failures=0
  for target in build-asan/bin/*_fuzz; do
    [ -x "$target" ] || { echo "no fuzz target was built"; return 1; }
    fuzz_one "$target" &
    running+=($!)
    if [ ${#running[@]} -ge 2 ]; then
      wait "${running[0]}" || failures=$((failures + 1))
      running=("${running[@]:1}")
    fi
  done
  for target in "${running[@]}"; do
    wait "$target" || failures=$((failures + 1))
  done
  [ "$failures" = 0 ]
}

stage install install || finish

if [ "$mode" = all ] || [ "$mode" = --fast ]; then
  stage "Release build" release_build || finish
fi
if [ "$mode" = --fast ]; then
  stage "records of new instruction sets" frozen_records
  stage "C++ tests (fast, golden)" cpp_tests build -L 'fast|golden'
  stage "end-to-end tests (not slow)" end_to_end -m "not slow" tests/e2e tests/client/python
  stage "deployment files (not slow)" end_to_end -m "not slow" tests/deploy
  stage "compatibility (not slow)" end_to_end -m "not slow" tests/compat
fi
if [ "$mode" = all ]; then
  stage "kernels for GPUs from sm_80 up" kernels_build
  stage "test floor" test_floor
  stage "format" format_check
  stage "API lint" api_lint
  stage "records of new instruction sets" frozen_records
  stage "C++ tests" cpp_tests build
  stage "quickstart --check" bash deploy/quickstart.sh --check
fi
if [ "$mode" = all ] || [ "$mode" = --asan ]; then
  if stage "ASan build" asan_build; then
    stage "C++ tests, ASan+UBSan" cpp_tests build-asan
    stage "end-to-end tests, ASan+UBSan" asan_end_to_end
  fi
fi
if [ "$mode" = all ] || [ "$mode" = --tsan ]; then
  stage "TSan build" tsan_build && stage "C++ tests, TSan" cpp_tests build-tsan -L threads
fi
if [ "$mode" = all ] || [ "$mode" = --fuzz ]; then
  stage "fuzz targets" asan_build --target fuzz_targets && stage "fuzz, $fuzz_seconds s a target" fuzz
fi
# Last, so that its closing line is.
if [ "$mode" = all ]; then
  # What judges speed means something on a quiet machine alone: pytest tests/fault -m timed, figures in its README.
  stage "faults and hostile peers" end_to_end -m "not timed" tests/fault
  stage "image, manifests, monitoring" end_to_end tests/deploy
  stage "compatibility" end_to_end tests/compat
  stage "end-to-end tests" python_tests
fi
finish
