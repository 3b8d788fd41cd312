#!/bin/sh
# Installs the Debian/Ubuntu packages that are missing. As another user than root it only names them.
# usage: setup_system.sh [--npm | --aarch64 | --clang]
set -eu

need=""
has_file() { for f in "$@"; do [ -e "$f" ] && return 0; done; return 1; }
want() { need="$need $1"; }

command -v c++ >/dev/null 2>&1 || want g++
has_file /usr/include/nlohmann/json.hpp /usr/local/include/nlohmann/json.hpp || want nlohmann-json3-dev
has_file /usr/include/jpeglib.h /usr/local/include/jpeglib.h || want libjpeg-dev
has_file /usr/include/png.h /usr/include/libpng16/png.h /usr/local/include/png.h || want libpng-dev
command -v pkg-config >/dev/null 2>&1 || want pkg-config
command -v dpkg-shlibdeps >/dev/null 2>&1 || want dpkg-dev
command -v python3 >/dev/null 2>&1 || want python3
python3 -c 'import ensurepip' >/dev/null 2>&1 || want python3-venv
if [ "${1:-}" = "--npm" ]; then command -v npm >/dev/null 2>&1 || want npm; fi
if [ "${1:-}" = "--aarch64" ]; then
    command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 || want g++-aarch64-linux-gnu
    command -v qemu-aarch64 >/dev/null 2>&1 || want qemu-user
    has_file /usr/aarch64-linux-gnu/lib/libc.so.6 || want libc6-arm64-cross
fi
if [ "${1:-}" = "--clang" ]; then command -v clang++ >/dev/null 2>&1 || want clang; fi

[ -n "$need" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "edgeprune: install these packages first:$need" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
apt-get install -y -qq --no-install-recommends $need
