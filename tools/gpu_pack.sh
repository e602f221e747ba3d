#!/usr/bin/env bash
# Builds what a GPU machine without Rust needs into one folder: the program, the tests of the device, the benches, all
# stripped and compressed. `tools/gpu_run.sh` unpacks and runs them there, from a copy of this tree that has the folder.
#
#     tools/gpu_pack.sh            # into target/gpu
#     tools/gpu_pack.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${1:-target/gpu}
most=$((60 << 20))

# paths of the executables that a cargo command makes, by the name of their target
built() {
    cargo "$@" --locked --no-run --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and set(made["target"]["kind"]) & {"test", "bench"}:
        print(made["target"]["name"], made["executable"])'
}

rm -rf "$pack"
mkdir -p "$pack/tests" "$pack/benches"
cargo build --locked --release
strip -o "$pack/slm-fast" target/release/slm-fast
built test --release --test cuda_device --test wgpu_device --test wgpu_lib --test wgpu_wide --test wgpu_lanes --test wgpu_loss | while read -r name path; do strip -o "$pack/tests/$name" "$path"; done
built bench --bench ops --bench training | while read -r name path; do strip -o "$pack/benches/$name" "$path"; done
git rev-parse --short HEAD >"$pack/commit"
git diff --quiet HEAD || echo "+" >>"$pack/commit"

# to about a quarter; the PTX inside is text
python3 - "$pack" <<'EOF'
import lzma, os, pathlib, sys

for path in pathlib.Path(sys.argv[1]).rglob("*"):
    if path.is_file() and os.access(path, os.X_OK):
        path.with_name(path.name + ".xz").write_bytes(lzma.compress(path.read_bytes(), preset=4))
        path.unlink()
EOF

bytes=$(du -sb "$pack" | cut -f1)
find "$pack" -type f -printf '%10s  %p\n'
echo "$((bytes >> 20)) MiB in $pack"
if [ "$bytes" -gt "$most" ]; then
    echo "error: more than $((most >> 20)) MiB" >&2
    exit 1
fi
