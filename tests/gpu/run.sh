#!/usr/bin/env bash
# Runs the bundle's tests and benchmarks on a GPU host, in a checkout of the repository: the C++ tests, then other checks side
# by side, then, alone on the machine, what is timed. Logs, tables and summary.txt go to $OUT (or .); exit code 0: every part passed.
# usage: tests/gpu/run.sh BUNDLE_DIR [part...]        default: all of them
#   test       the C++ tests: ops, goldens, bits in every company, a real fault      fla   then FLA's errors beside theirs
#   daemon e2e the daemon through its API                              memcheck racecheck  compute-sanitizer on the op tests
#   portable   the op tests and sluice_bench kernels with what other GPUs than Hopper run, where the bundle has it
#   kernels    sluice_bench kernels      served   a 1.3B daemon under load      peer   FLA and PyTorch attention
#   fault      the tests of tests/fault that compare speeds, with the 1.3B model
set -uo pipefail
bundle=$(cd "${1:?usage: run.sh BUNDLE_DIR [part...]}" && pwd)
shift
parts=" ${*:-test fla daemon e2e memcheck racecheck portable kernels served fault peer} "
out=${OUT:-.}
scratch=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null; rm -rf "$scratch"' EXIT
export LD_LIBRARY_PATH="$bundle/lib:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
export SLUICE_BIN_DIR=$bundle/bin SLUICE_GOLDEN_ERRORS=$out/golden_errors.json PYTHONUNBUFFERED=1
if ! ldconfig -p | grep -q libcublasLt.so.13; then
  found=$(find /usr /opt -name 'libcublasLt.so.13' 2> /dev/null | head -1)
  [ -n "$found" ] && export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$(dirname "$found")"
fi
wants() { [[ $parts == *" $1 "* ]]; }
# part NAME SECONDS COMMAND...: where it is wanted; its output goes to $out/NAME.log, its verdict to the summary.
part() {
  local name=$1 limit=$2 started=$SECONDS code=0
  shift 2
  wants "${name%_*}" || return 0
  timeout "$limit" "$@" > "$out/$name.log" 2>&1 || code=$?
  echo "$name: $([ $code = 0 ] && echo ok || echo "FAILED ($code)"), $((SECONDS - started)) s" >> "$out/summary.txt"
}
tests=(python3 -m pytest -p no:cacheprovider -q -s -ra)
sanitize() { part "$1" 500 env SLUICE_PATIENCE_SECONDS=200 compute-sanitizer --tool "${1%_*}" --error-exitcode 9 "$bundle/bin/cuda_test" --gtest_filter="$2"; }
# Every op: heads, chunks and spans that fill tiles and that do not. racecheck is slow: a share of it in each of three processes.
ops='*AgreesWithTheCpu/retnet_gqa:*AgreesWithTheCpu/mamba2_groups:*AgreesWithTheCpu/hgrn2_conv:*AgreesWithTheCpu/lightnet_conv:*AgreesWithTheCpu/transnormer_lrpe:*AgreesWithTheCpu/product:*AgreesWithTheCpu/elu_normaliser:*AgreesWithTheCpu/gated_delta:*AgreesWithTheCpu/kda_bounded:*SmallHeads:*AgreesWithTheCpu/odd_heads:*AgreesWithTheCpu/conv:*SmallVocabulary:*GemmRowsTest.Uneven:*NormBetween*:*GroupsOfManyPrompts'

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/host.txt"
rm -f "$out/summary.txt"
if wants daemon || wants e2e || wants fault || wants fla || wants peer; then
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$scratch/site" "$bundle"/wheels/*.whl
  export PYTHONPATH=$scratch/site
fi
if wants peer; then
  python3 tests/bench/fla_peer.py --warm "$scratch/warm" --go "$scratch/go" > "$out/peer.log" 2>&1 &
  peer=$!
fi
# Beside the sanitizers it takes many times as long.
part test 200 "$bundle/bin/cuda_test"
(
  trap - EXIT
  part fla 200 python3 tests/gpu/fla_errors.py "$SLUICE_GOLDEN_ERRORS" --first-config &
  (
    part daemon 120 "${tests[@]}" tests/gpu/test_daemon.py
    part e2e 100 "${tests[@]}" -x -m "not slow" tests/e2e/test_{generate,sampling,stop,score,output}.py
  ) &
  [ -x "$bundle/bin/portable_cuda_test" ] &&
    part portable 300 "$bundle/bin/portable_cuda_test" --gtest_filter='-*Daemon*:CudaGemmRowsTest*' &
  sanitize memcheck "$ops:CudaMixerTest.*:*AgreesWithTheCpu/*:*StatesMove*-*FarSlots*" &
  for share in 0 1 2; do
    GTEST_TOTAL_SHARDS=3 GTEST_SHARD_INDEX=$share sanitize racecheck_$share "$ops" &
  done
  { wants served || wants fault; } && python3 tests/bench/random_checkpoint.py "$scratch/model" > "$out/checkpoint.log" 2>&1
  wait
)
# The peer compiles and times its kernels until it says that it is warm.
if wants peer; then
  for _ in $(seq 240); do
    { [ -f "$scratch/warm" ] || ! kill -0 "$peer" 2> /dev/null; } && break
    sleep 1
  done
fi
part kernels 200 "$bundle/bin/sluice_bench" kernels --device=cuda
part served 150 python3 tests/bench/served.py --bin "$bundle/bin" --model "$scratch/model"
[ -x "$bundle/bin/portable_sluice_bench" ] &&
  part portable_kernels 120 "$bundle/bin/portable_sluice_bench" kernels --device=cuda
part fault 200 env SLUICE_TEST_MODEL="$scratch/model" "${tests[@]}" tests/fault -m timed
if wants peer; then
  touch "$scratch/go"
  timeout 90 tail --pid="$peer" -f /dev/null
  echo "peer: $(grep -q 'FLA 1.3B, ms' "$out/peer.log" && echo ok || echo FAILED)" >> "$out/summary.txt"
fi

show() { [ -f "$out/$1.log" ] && { echo "--- $1"; grep -E "${3:-.}" "$out/$1.log" | tail -n "$2"; }; }
show test 70 'FAILED|PASSED|argmax|^relative|^core'
show fla 16
show daemon 8 'passed|failed|^E  |fault:'
show e2e 6 'passed|failed|^FAILED'
show memcheck 2
for share in 0 1 2; do show racecheck_$share 1; done
show portable 4 'FAILED|PASSED|argmax'
show kernels 125
show portable_kernels 12
show fault 12 'ratio|overload|tenant|passed|failed'
show served 20
show peer 12
echo "--- summary"
cat "$out/summary.txt"
! grep -q FAILED "$out/summary.txt"
