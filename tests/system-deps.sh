#!/bin/sh
# Installs on Debian, as root, the tools that the tests use and pip cannot bring; only what is missing.
# Tool to look for, then the packages that bring it:
set -eu
wanted='
chromium              chromium
chromedriver          chromium-driver
clang++               clang libclang-rt-14-dev
ld.lld                lld
aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
qemu-aarch64          qemu-user
x86_64-w64-mingw32-g++-posix g++-mingw-w64-x86-64-posix
valgrind              valgrind
strace                strace
'
# These have no command on the path: the file to look for, then the package that brings it.
files='
/usr/lib/wine/wine64 wine64
/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc fonts-noto-cjk
'
packages=$(printf '%s' "$wanted" | while read -r tool names; do
    [ -z "$tool" ] || command -v "$tool" > /dev/null || echo "$names"
done
printf '%s' "$files" | while read -r file names; do
    [ -z "$file" ] || [ -e "$file" ] || echo "$names"
done)
[ -n "$packages" ] || exit 0
if ! command -v apt-get > /dev/null; then
    echo "system-deps: got a system without apt-get; wanted Debian: install these yourself:" $packages >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "system-deps: got an ordinary user; wanted root: run 'sudo make system-deps', which installs" $packages >&2
    exit 1
fi
echo "system-deps: installing" $packages
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086  # one word per package is meant
if ! { apt-get -qq update && apt-get -qq install --no-install-recommends -y $packages; } > "$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
rm -f "$log"
