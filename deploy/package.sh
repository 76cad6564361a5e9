#!/usr/bin/env bash
# Packages of a Release build: a .deb for Debian 12 and Ubuntu 24.04, a tarball for any x86-64 Linux with glibc 2.36 or newer, and a
# wheel for Python. All have the bundled model, the licences of what they carry, and a list of it (SPDX).
# Usage: deploy/package.sh [--build=DIR] [--out=DIR] [deb] [tar] [wheel]     (build, build/packages, all three)
set -euo pipefail
cd "$(dirname "$0")/.."

build=build
out=
kinds=()
for argument in "$@"; do
  case "$argument" in
    --build=*) build=${argument#*=} ;;
    --out=*) out=${argument#*=} ;;
    deb | tar | wheel) kinds+=("$argument") ;;
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) echo "package: unknown argument '$argument' (--build=DIR, --out=DIR, deb, tar, wheel)" >&2; exit 2 ;;
  esac
done
[ ${#kinds[@]} -gt 0 ] || kinds=(deb tar wheel)
out=${out:-$build/packages}
fail() { printf 'package: %s\n' "$*" >&2; exit 1; }
for program in sluiced sluice; do
  [ -x "$build/bin/$program" ] || fail "$build/bin/$program is not there: cmake --build $build --target sluiced sluice"
done
version=$("$build/bin/sluiced" --version | sed 's/^sluiced //')
# glibc and what belongs to it is the system's in every package.
system='^(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|linux-vdso)\.so'
# The .deb also takes these from the distribution, which keeps them secure.
debian='^(libstdc\+\+|libgcc_s|libssl|libcrypto)\.so'

# stage DIR PREFIX EXCEPT: installs below DIR/PREFIX, with the shared libraries that EXCEPT does not match in lib/sluice.
stage() {
  local root=$1 prefix=$2 except=$3 library name
  rm -rf "$root"
  DESTDIR=$root cmake --install "$build" --strip --prefix "$prefix" > "$out/install.log" || { cat "$out/install.log"; return 1; }
  mkdir -p "$root$prefix/lib/sluice"
  ldd "$build/bin/sluiced" "$build/bin/sluice" | sed -nE 's/^\t(\S+) => (\/\S+) .*/\1 \2/p' | sort -u | while read -r name library; do
    grep -qE "$system" <<< "$name" && continue
    [ -n "$except" ] && grep -qE "$except" <<< "$name" && continue
    install -m 644 "$(readlink -f "$library")" "$root$prefix/lib/sluice/$name"
    echo "$name $(readlink -f "$library")"
  done > "$out/libraries.txt"
  # Their licences, and the list of everything.
  python3 deploy/package_files.py sbom --version="$version" --libraries="$out/libraries.txt" --root="$root" --prefix="$prefix"
}

make_deb() {
  local root=$out/deb prefix=/usr deb
  deb=$out/sluice_${version}_amd64.deb
  stage "$root" "$prefix" "$debian"
  mkdir -p "$root/DEBIAN" "$root/usr/share/zsh/vendor-completions"
  mv "$root"/usr/share/zsh/site-functions/_* "$root/usr/share/zsh/vendor-completions/"
  rmdir "$root/usr/share/zsh/site-functions"
  gzip -9n "$root"/usr/share/man/man1/*.1
  gzip -9nc CHANGELOG.md > "$root/usr/share/doc/sluice/changelog.gz"
  cp LICENSE "$root/usr/share/doc/sluice/copyright"
  cat > "$root/DEBIAN/control" <<CONTROL
Package: sluice
Version: $version
Architecture: amd64
Section: net
Priority: optional
Maintainer: The authors of Sluice <sluice@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= 2.36), libstdc++6 (>= 12), libssl3 | libssl3t64
Description: gRPC and HTTP server of language models with linear attention
 sluiced serves Hugging Face checkpoints of gated linear attention and its relatives from the CPU or
 from an NVIDIA GPU; sluice is its command line. A small model comes with it: "sluice run" chats.
CONTROL
  echo /etc/sluice/sluiced.flags > "$root/DEBIAN/conffiles"
  # The unit makes a user of its own at each start (DynamicUser). Its sessions in /var/lib/sluice are not the package's: they stay.
  cat > "$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart sluiced.service
fi
SCRIPT
  cat > "$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now sluiced.service; fi
SCRIPT
  cat > "$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
SCRIPT
  chmod 755 "$root"/DEBIAN/p*
  (cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
  chmod -R u+rwX,go+rX,go-w "$root"
  dpkg-deb --root-owner-group --build -Zzstd -z9 "$root" "$deb" > "$out/deb.log" || { cat "$out/deb.log"; return 1; }
}

make_tar() {
  local name=sluice-$version-linux-x86_64
  stage "$out/tar" "/$name" ''
  tar --create --directory="$out/tar" --owner=0 --group=0 --sort=name --mode=u+rwX,go+rX,go-w "$name" | gzip -6n > "$out/$name.tar.gz"
}

make_wheel() {
  stage "$out/wheel" /dist ''
  python3 deploy/package_files.py wheel --version="$version" --root="$out/wheel/dist" --out="$out"
}

mkdir -p "$out"
for kind in "${kinds[@]}"; do
  started=$SECONDS
  "make_$kind"
  echo "$kind made in $((SECONDS - started)) s"
done
rm -rf "${out:?}"/{deb,tar,wheel} "$out"/{install.log,deb.log,libraries.txt}
cd "$out"
sha256sum -- *.deb *.tar.gz *.whl 2> /dev/null > SHA256SUMS || true
find . -maxdepth 1 -type f \( -name '*.deb' -o -name '*.tar.gz' -o -name '*.whl' \) -printf '%f: %s bytes\n' | sort
