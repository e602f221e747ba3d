#!/bin/sh
# Makes this run again with the commit of slm-fast that made it, and says whether every bit is the same.
#
#   ./reproduce.sh [CLONE] [OPTION...]
#
# CLONE: a clone of slm-fast, bare or not, or the URL of one; it is only read from. It may be left out where this folder
# lies in a clone. OPTIONs go to `slm-fast reproduce`, for example `--device cpu` or `--data DIR`.
# Ends with 0 where every bit is the same, with 1 where one differs, with another number where it could not be done.
set -eu

sha=@SHA@

fail() {
    echo "reproduce.sh: $*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
clone=
case "${1-}" in
    '' | -*) ;;
    *)
        clone=$1
        shift
        ;;
esac
[ "$sha" != unknown ] || fail "nobody knows which commit made this run: its program was built without git"
[ -n "$clone" ] || clone=$(git -C "$here" rev-parse --show-toplevel 2>/dev/null) ||
    fail "name a clone of slm-fast, or the URL of one: $0 CLONE"

source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
trap 'exit 130' INT TERM
git clone --quiet --no-checkout --shared "$clone" "$source/slm-fast" || fail "$clone cannot be cloned"
git -C "$source/slm-fast" checkout --quiet --detach "$sha" || fail "the commit $sha is not in $clone"
cargo run --locked --release --manifest-path "$source/slm-fast/Cargo.toml" --bin slm-fast -- reproduce "$here" "$@"
