#!/bin/sh
# Builds libremctl for wheels, as a static library, from upstream's release: sh ci/build-libremctl.sh FOLDER
#
# FOLDER gets include/remctl.h, lib/libremctl.a, LICENSE and an SBOM, libremctl.cdx.json; nothing is done if it has them. A C compiler, make, xz, curl
# (or wget), the headers of Kerberos and those of libevent are needed: configure requires libevent for the server, but
# the library does not use it.
#
# REMCTL_TARBALL  the release as a file, instead of a download

set -eu

version=3.18
sha256=69980a0058c848f4d1117121cc9153f2daace5561d37bfdb061473f035fc35ef

# The same file in several places: upstream's, then copies of distributions. They are tried in this order.
sources="
https://archives.eyrie.org/software/kerberos/remctl-$version.tar.xz
https://deb.debian.org/debian/pool/main/r/remctl/remctl_$version.orig.tar.xz
http://deb.debian.org/debian/pool/main/r/remctl/remctl_$version.orig.tar.xz
http://archive.ubuntu.com/ubuntu/pool/universe/r/remctl/remctl_$version.orig.tar.xz
"

say() { echo "build-libremctl: $*" >&2; }

[ $# = 1 ] || {
    say "the folder to build into is missing"
    exit 64
}
mkdir -p "$1"
folder=$(cd "$1" && pwd)
tarball=$folder/remctl-$version.tar.xz
stamp=$folder/.built
# Sources, flags and compiler of the build: a change of any causes a new build.
built="$(cksum <"$0") ${CC:-cc} $(${CC:-cc} --version | head -n 1)"
[ "$(cat "$stamp" 2>/dev/null)" != "$built" ] || exit 0
rm -f "$stamp"

# Is the file $1 the release?
genuine() {
    [ -f "$1" ] || return 1
    if command -v sha256sum >/dev/null; then
        sum=$(sha256sum <"$1")
    else
        sum=$(shasum -a 256 <"$1")
    fi
    [ "${sum%% *}" = "$sha256" ]
}

download() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --connect-timeout 20 --max-time 300 --output "$2" "$1"
    else
        wget -q -T 60 -O "$2" "$1"
    fi
}

# Sets $tarball to a file with the right checksum.
fetch() {
    if [ -n "${REMCTL_TARBALL:-}" ]; then
        tarball=$REMCTL_TARBALL
        genuine "$tarball" && return 0
        say "REMCTL_TARBALL=$tarball is not there, or not remctl $version: its SHA-256 should be $sha256"
        return 1
    fi
    ! genuine "$tarball" || return 0
    for source in $sources; do
        rm -f "$tarball.part"
        download "$source" "$tarball.part" || continue
        if genuine "$tarball.part"; then
            mv "$tarball.part" "$tarball"
            return 0
        fi
        say "$source has another checksum, and is not used"
    done
    rm -f "$tarball.part"
    say "remctl $version could not be downloaded; name a copy of it: REMCTL_TARBALL=remctl-$version.tar.xz"
    return 1
}

fetch || exit 69

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tar -xJf "$tarball" -C "$work"
cd "$work/remctl-$version"

# Homebrew's libevent is not in the compiler's path.
set --
! command -v brew >/dev/null || set -- "--with-libevent=$(brew --prefix libevent)"

# No krb5-config: it would print this system's folders even if CC compiles for another system.
# Symbols are hidden, because only the extension uses them. The code is hardened, because it parses network data.
build() {
    PATH_KRB5_CONFIG=/nonexistent CFLAGS="-O2 -fPIC -fvisibility=hidden -fstack-protector-strong -D_FORTIFY_SOURCE=2" \
        ./configure --quiet --disable-shared --enable-static --enable-reduced-depends "$@" &&
        make -s client/libremctl.la
}
if ! build "$@" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    exit 1
fi

mkdir -p "$folder/include" "$folder/lib"
cp client/remctl.h "$folder/include/"
cp client/.libs/libremctl.a "$folder/lib/"
cp LICENSE "$folder/"
cat >"$folder/libremctl.cdx.json" <<SBOM
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.6",
  "version": 1,
  "components": [
    {
      "type": "library",
      "name": "libremctl",
      "version": "$version",
      "description": "linked statically into the extension module",
      "purl": "pkg:generic/remctl@$version",
      "licenses": [{ "license": { "name": "MIT and others: see licenses/LICENSE.libremctl" } }],
      "externalReferences": [
        {
          "type": "source-distribution",
          "url": "https://archives.eyrie.org/software/kerberos/remctl-$version.tar.xz",
          "hashes": [{ "alg": "SHA-256", "content": "$sha256" }]
        }
      ]
    }
  ]
}
SBOM
echo "$built" >"$stamp"
