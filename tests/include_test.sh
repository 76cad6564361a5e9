#!/usr/bin/env bash
# Includes run one way: server -> engine -> kernels. Usage: include_test.sh [SOURCE_DIR]
# Prints every include that breaks a rule below; a self-test plants violations first and expects each to be found.
set -euo pipefail

# check ROOT FOLDER WHY PATTERN [EXCEPT]: no source in ROOT/FOLDER may include what matches PATTERN, unless EXCEPT matches.
check() {
  local root=$1 folder=$2 why=$3 pattern=$4 except=${5:-^$} found
  [ -d "$root/$folder" ] || return 0
  found=$(cd "$root" && grep -rnE --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' \
            "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($pattern)" "$folder" | grep -vE "[<\"]($except)" || true)
  [ -z "$found" ] && return 0
  printf '%s\n' "$found" | sed "s|\$|   <- $why|"
  return 1
}

network='grpc|grpcpp|grpc\+\+|google/protobuf|google/rpc|sluice/v1|sys/socket|netinet/|boost/|prometheus/'
threads='thread>|mutex>|shared_mutex>|condition_variable>|future>|stop_token>|semaphore>|barrier>|latch>|pthread'
no_absl_mutex="Debian's Abseil hides its Mutex from ThreadSanitizer"

# rules ROOT: 0 if every include keeps to the rules.
rules() {
  local root=$1 bad=0
  check "$root" server/flags "server/flags knows nothing but text" "server/|engine/|client/|kernels/|tests/|$network" 'server/flags/' || bad=1
  check "$root" kernels "kernels/ knows nothing above it" 'engine/|server/|client/|tests/|nlohmann/|spdlog/' || bad=1
  check "$root" kernels "kernels/ knows no network" "$network" || bad=1
  check "$root" engine "engine/ knows nothing above it" 'server/|client/|tests/' || bad=1
  check "$root" engine "engine/ knows no network and no messages" "$network|spdlog/" || bad=1
  check "$root" engine "engine/ has no threads" "$threads" || bad=1
  check "$root" engine "engine/ reads engine/clock.h, never a clock" 'chrono>|absl/time/clock.h|sys/time.h' || bad=1
  check "$root" engine "engine/ sees kernels/*.h only" 'kernels/[a-z_]+/' || bad=1
  check "$root" server/core "server/core links no gRPC and no messages" "$network" || bad=1
  check "$root" server/core "server/core knows nothing of the rest of server/" 'server/|client/|tests/' 'server/core/' || bad=1
  check "$root" server "server/ knows nothing of its clients" 'client/|tests/' || bad=1
  check "$root" client "client/ speaks to the daemon through proto/ only; sluice inspect reads models by engine/inspect.h, and both command lines share server/flags" \
    'server/|engine/|kernels/|tests/' 'engine/inspect\.h|server/flags/' || bad=1
  local folder
  for folder in kernels engine server client; do
    check "$root" "$folder" "$no_absl_mutex" 'absl/synchronization/' || bad=1
  done
  return $bad
}

# Each planted line must be found, and a clean tree must pass.
self_test() {
  local dir path include
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' RETURN
  mkdir -p "$dir"/{kernels/cpu,engine,server/core,server/flags,client}
  echo '#include "kernels/ops.h"' > "$dir/engine/good.cc"
  echo '#include "server/core/mutex.h"' > "$dir/server/core/good.cc"
  echo '#include "engine/inspect.h"' > "$dir/client/good.cc"
  echo '#include "server/flags/size.h"' > "$dir/client/flags.cc"
  rules "$dir" > /dev/null || { echo "self-test: a clean tree is refused"; return 1; }
  while read -r path include; do
    echo "#include $include" > "$dir/$path"
    if rules "$dir" > /dev/null; then
      echo "self-test: '#include $include' in $path was not found"
      return 1
    fi
    rm "$dir/$path"
  done <<'CASES'
server/flags/a.cc "server/options.h"
kernels/cpu/a.cc "engine/config.h"
kernels/a.h <grpcpp/grpcpp.h>
kernels/a.h "absl/synchronization/mutex.h"
engine/a.cc "server/options.h"
engine/a.h "sluice/v1/model.pb.h"
engine/a.cc <thread>
engine/a.cc <mutex>
engine/a.cc <chrono>
engine/a.cc "kernels/cpu/backend_cpu.h"
server/core/a.h <grpcpp/support/status.h>
server/core/a.h "server/service.h"
server/a.cc "client/client.h"
client/a.cc "engine/engine.h"
client/a.cc "engine/checkpoint/checkpoint.h"
server/a.cc "absl/synchronization/notification.h"
CASES
}

root=$(cd "${1:-$(dirname "$0")/..}" && pwd)
self_test
if ! rules "$root"; then
  echo "include_test: the includes above point the wrong way" >&2
  exit 1
fi
echo "include_test: every include points the right way"
