#!/usr/bin/env bash
# record.sh: records what gla computes to the bit, for those instruction sets of this CPU that have no file here yet, from a
# build of commit 71a9137 (four minutes on two cores), which is thrown away again.
# record.sh --missing FROZEN_BITS_TEST: the same, but builds nothing where that test program finds all its files.
set -euo pipefail
commit=71a9137
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ "${1:-}" = --missing ]; then
  missing=0
  for target in $("$2" --gtest_list_tests | sed -n 's|^  Logits/\([^ ]*\).*|\1|p'); do
    [ -f "$here/$target.txt" ] || { echo "$target has no record"; missing=1; }
  done
  [ "$missing" = 1 ] || exit 0
fi
scratch=$(mktemp -d)
tree=$scratch/tree
cleanup() {
  git -C "$root" worktree remove --force "$tree" 2> /dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT
git -C "$root" worktree add --quiet --detach "$tree" "$commit"
cp "$root/tests/engine/frozen_bits_test.cc" "$tree/tests/engine/"
grep "NAME frozen_bits_test " "$root/tests/engine/CMakeLists.txt" >> "$tree/tests/engine/CMakeLists.txt"
cmake -S "$tree" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLUICE_CUDA=OFF -DSLUICE_SERVER=OFF
cmake --build "$scratch/build" --target frozen_bits_test
SLUICE_RECORD_FROZEN=$here "$scratch/build/bin/frozen_bits_test"
