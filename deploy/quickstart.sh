#!/usr/bin/env bash
# From a fresh Debian 12 or Ubuntu 24.04 to a streamed story: installs what is missing, builds, starts sluiced on loopback. Where
# nothing was built yet and build/packages has a tarball of package.sh, that is used instead.
# Usage: deploy/quickstart.sh [--check]     --check: stop after the story (exit 0: all of it worked)
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
case "${1:-}" in
  '') ;;
  --check) check=true ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  *) echo "quickstart: unknown argument '$1' (only --check)" >&2; exit 2 ;;
esac

model=deploy/models/classics-12m
address=127.0.0.1:50051
admin_address=127.0.0.1:9464
http_address=127.0.0.1:8080
bin=build/bin
log=build/quickstart.log
daemon=
mkdir -p build
: > "$log"

say() { printf '%s\n' "$*"; }
fail() {
  printf 'quickstart: %s\n' "$*" >&2
  if [ -s "$log" ]; then
    printf 'The end of %s:\n' "$log" >&2
    tail -n 25 "$log" | sed 's/^/  /' >&2
  fi
  exit 1
}

# Runs a command, its output in the log.
logged() { printf '\n$ %s\n' "$*" >> "$log"; "$@" >> "$log" 2>&1 < /dev/null; }

install_packages() {
  command -v dpkg-query > /dev/null || { say "No apt here: taking it that the packages of deploy/apt-packages.txt are installed."; return; }
  local wanted missing sudo=()
  wanted=$(grep -v '^#' deploy/apt-packages.txt)
  # shellcheck disable=SC2086  # one word a package
  missing=$(comm -13 <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2> /dev/null |
                         sed -n 's/^installed //p' | sort -u) <(printf '%s\n' $wanted | sort -u) | tr '\n' ' ')
  [ -z "$missing" ] && return
  if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || fail "these packages are missing, and there is no sudo to install them: $missing"
    sudo=(sudo)
  fi
  say "Installing with apt-get: $missing"
  [ ${#sudo[@]} = 0 ] || sudo -v || fail "sudo was refused; install these packages yourself: $missing"
  logged "${sudo[@]}" apt-get update || say "  (apt-get update failed; going on with the package lists that are there)"
  # shellcheck disable=SC2086
  logged "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
    fail "apt-get could not install the packages"
}

# Unpacks the newest tarball of package.sh. False where there is none, or a build of one's own.
use_package() {
  local tarball
  [ ! -f build/build.ninja ] || return 1
  tarball=$(find build/packages -maxdepth 1 -name 'sluice-*-linux-x86_64.tar.gz' 2> /dev/null | sort -V | tail -n 1)
  [ -n "$tarball" ] || return 1
  rm -rf build/package
  mkdir -p build/package
  tar --extract --gzip --file="$tarball" --directory=build/package --strip-components=1 || fail "$tarball cannot be unpacked"
  bin=build/package/bin
  say "Unpacked $tarball: $bin/sluiced, $bin/sluice"
}

# On a terminal: the share of the build's steps that are done, from ninja's lines "[12/345] ...".
show_percent() {
  local steps
  while sleep 1; do
    steps=$(tail -n 1 "$log" | sed -nE 's/^\[([0-9]+)\/([0-9]+)\].*/\1 \2/p')
    [ -z "$steps" ] || printf '\r%3d %% ' "$((${steps% *} * 100 / ${steps#* }))"
  done
}

build() {
  local started=$SECONDS
  # Configured once; after that the build itself notices changed CMake files.
  if [ ! -f build/build.ninja ]; then
    say "Building sluiced and sluice (a few minutes the first time; the compiler's output goes to $log) ..."
    logged cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release || fail "cmake could not configure the build"
  fi
  local percent=
  if [ -t 1 ]; then show_percent & percent=$!; fi
  logged cmake --build build --target sluiced sluice -j "$(nproc)" || { [ -z "$percent" ] || kill "$percent"; fail "the build failed"; }
  [ -z "$percent" ] || { kill "$percent"; printf '\r'; }
  say "Built in $((SECONDS - started)) s: build/bin/sluiced, build/bin/sluice"
}

port_taken() { (exec 3<> "/dev/tcp/${1%:*}/${1##*:}") 2> /dev/null; }

# Ends the daemon and returns its exit code.
stop_daemon() {
  local code=0 pid=$daemon
  daemon=
  kill -TERM "$pid" 2> /dev/null || true
  wait "$pid" || code=$?
  return $code
}

start_daemon() {
  if port_taken "$address"; then
    say "Something already listens on $address: taking a free port instead."
    address=127.0.0.1:0
  fi
  if port_taken "$admin_address"; then admin_address=127.0.0.1:0; fi
  if port_taken "$http_address"; then http_address=127.0.0.1:0; fi
  local out=build/quickstart.serving
  : > "$out"
  "$bin/sluiced" --model="$model" --listen="$address" --admin_listen="$admin_address" --http_listen="$http_address" > "$out" 2>> "$log" < /dev/null &
  daemon=$!
  trap '[ -z "$daemon" ] || kill -TERM "$daemon" 2> /dev/null || true' EXIT
  local waited=0 code=0
  until grep -q '^serving ' "$out"; do
    if ! kill -0 "$daemon" 2> /dev/null; then
      wait "$daemon" || code=$?
      daemon=
      fail "sluiced ended with exit code $code before it served"
    fi
    [ $((waited += 1)) -le 600 ] || fail "sluiced does not serve after 60 s"
    sleep 0.1
  done
  address=$(sed -nE 's/^serving .* at ([^ ,]+:[0-9]+), admin at .*/\1/p' "$out")
  admin_address=$(sed -nE 's/^serving .*, admin at ([^ ,]+:[0-9]+).*/\1/p' "$out")
  http_address=$(sed -nE 's/^serving .*, http at ([^ ]+:[0-9]+).*/\1/p' "$out")
  say "sluiced: $(grep '^serving ' "$out")"
}

story() {
  local command=("$bin/sluice" --address="$address" generate --echo --max-new-tokens=200 --seed=5
                 --temperature=0.7 --top-p=0.9)
  local prompt="The old house stood alone at the edge of the moor, and"
  printf '\n$ %s "%s"\n\n' "${command[*]}" "$prompt"
  "${command[@]}" "$prompt" 2>> "$log" < /dev/null || fail "no story: sluice generate failed"
  say
}

try_next() {
  cat <<TXT
Try next, in another terminal:
  $bin/sluice --address=$address generate "Title: The Lost Key" --temperature=0.7
  echo "It was a dark night" | $bin/sluice --address=$address generate --json
  $bin/sluice --address=$address score "The captain looked at the sea."
  $bin/sluice --address=$address model
  $bin/sluice --address=$address bench
  curl http://$admin_address/metrics
  $bin/sluice --help
TXT
}

use_package || { install_packages; build; }
start_daemon
story
if $check; then
  stop_daemon || fail "sluiced ended with exit code $? after SIGTERM, expected 0"
  say "Check passed: built, served, streamed, stopped cleanly."
  exit 0
fi
try_next
say
say "sluiced keeps running here. Ctrl-C stops it (log: $log). Write and fork stories at http://$http_address/"
trap : INT TERM  # the daemon gets its own SIGINT from the terminal; wait for it to end by itself
code=0
wait "$daemon" || code=$?
while kill -0 "$daemon" 2> /dev/null; do
  kill -TERM "$daemon" 2> /dev/null || true
  code=0
  wait "$daemon" || code=$?
done
daemon=
say "sluiced ended with exit code $code."
exit "$code"
