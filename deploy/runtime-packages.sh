#!/usr/bin/env bash
# The Debian or Ubuntu packages that hold the shared libraries of some binaries, one a line. Usage: runtime-packages.sh BINARY...
set -euo pipefail
export LC_ALL=C

libraries=$(ldd "$@")
if grep 'not found' <<< "$libraries" >&2; then exit 1; fi
sed -nE 's/^.* => (\/[^ ]+) .*/\1/p' <<< "$libraries" | sort -u | while read -r library; do
  # dpkg knows a file by the path it was packed with, with or without /usr.
  file=$(readlink -f "$library")
  { dpkg-query -S "$file" || dpkg-query -S "${file#/usr}"; } 2> /dev/null | sed 's/:.*//' ||
    { echo "runtime-packages: no package holds $library" >&2; exit 1; }
done | sort -u
