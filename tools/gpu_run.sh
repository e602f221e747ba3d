#!/usr/bin/env bash
# Runs what `tools/gpu_pack.sh` packed on a machine with a GPU: needs the driver, this tree with the pack, and Python;
# no Rust, no CUDA. Every stage has a time limit and an exit code of its own, and none stops the others.
#
#     tools/gpu_run.sh                               # every stage, within half an hour
#     tools/gpu_run.sh --limit 560 tests ops         # these, within 560 seconds together
#
# Options: --pack FOLDER (target/gpu), --out FOLDER (gpu-results), --limit SECONDS (1800; all stages together, later ones
# are left out), --soak SECONDS (60; of the stage soak). Stages, in order: devices tests specs specs_wgpu ops training
# wgpu ops_wgpu training_wgpu ratio memcheck racecheck initcheck synccheck trial agents search curves jax torch soak. In
# the folder: table.md with one line a stage, log.txt with all their output, a CSV with the figures of the benches,
# jax.jsonl and torch.jsonl, curves/ with a graph of all devices for each spec.
set -uo pipefail
cd "$(dirname "$0")/.."

pack=target/gpu out=gpu-results limit=1800 soak=60 wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --pack) pack=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --limit) limit=$2 && shift 2 ;;
        --soak) soak=$2 && shift 2 ;;
        -*) echo "unknown option $1" >&2 && exit 2 ;;
        *) wanted+=("$1") && shift ;;
    esac
done
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# executables come compressed
python3 - "$pack" "$work/pack" <<'EOF'
import lzma, pathlib, shutil, sys

folder, to = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
shutil.copytree(folder, to)
for path in to.rglob("*.xz"):
    path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
    path.unlink()
EOF
out=$(realpath "$out") pack=$work/pack
export SLM_FAST_ROOT=$PWD SLM_FAST_PROGRAM=$pack/slm-fast
machine=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr -c 'A-Za-z0-9\n' '_')
export SLM_FAST_BENCH_CSV=$out/$(date +%F)-${machine:-unknown}.csv
chmod -R u+x "$pack"

{
    echo "| stage | exit code | seconds | last line |"
    echo "| :-- | --: | --: | :-- |"
} >"$out/table.md"

# stage NAME LIMIT COMMAND..: runs it if it is wanted and there is time
stage() {
    local name=$1 most=$2 code left start
    shift 2
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
    left=$((limit - SECONDS))
    if [ "$left" -lt 10 ]; then
        echo "| $name | left out | | no time left |" >>"$out/table.md"
        return
    fi
    start=$(date +%s.%N)
    printf '\n== %s: %s\n' "$name" "$*" | tee -a "$out/log.txt"
    timeout -k 5 $((most < left ? most : left)) "$@" >"$work/$name" 2>&1
    code=$?
    cat "$work/$name" >>"$out/log.txt"
    tail -n 40 "$work/$name"
    printf '| %s | %s | %.1f | %s |\n' "$name" "$code" "$(echo "$(date +%s.%N) - $start" | bc 2>/dev/null ||
        python3 -c "import time; print(time.time() - $start)")" "$(grep -v '^ *$' "$work/$name" | tail -n 1 | tr '|' '/')" >>"$out/table.md"
}

# a stage that needs a tool which is not there
absent() {
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $1 "* ]]; then return; fi
    echo "| $1 | skipped | | $2 |" >>"$out/table.md"
}

# every spec for some thousand frames on one device: which end well, which need an op that the device has no kernels for
specs() {
    local spec good=0 bad=0 refused=0
    for spec in specs/*/*.json; do
        case $spec in specs/suites/* | *_search.json) continue ;; esac
        if timeout 60 "$pack/slm-fast" train "$spec" --device "$1" --quiet --data "$work/specs" --seed 1 \
            --set env.max_frame=4000 --set meta.max_session=2 >"$work/spec.txt" 2>&1; then
            good=$((good + 1))
        elif grep -q 'is not built for the' "$work/spec.txt"; then
            refused=$((refused + 1)) && echo "$spec: $(grep 'is not built for the' "$work/spec.txt")"
        else
            bad=$((bad + 1)) && echo "$spec:" && tail -n 5 "$work/spec.txt"
        fi
    done
    echo "$good specs train on $1, $refused are refused, $bad fail"
    [ "$bad" -eq 0 ]
}

# one tool on the cases of one op after the other, so that the report names the op: first those that came last. The tool
# makes everything many times slower
sanitize() {
    local tool=$1 op failed=0
    shift
    for op in "$@"; do
        echo "-- $tool: $op"
        OP=$op timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$pack/tests/cuda_device" \
            --test-threads 1 every_op_equals_its_definition || failed=$((failed + 1))
    done
    echo "$tool: $failed of $# ops failed"
    [ "$failed" -eq 0 ]
}

train() {
    "$pack/slm-fast" train "$@" --device cuda --quiet --data "$work/data"
}

# seconds from process start to process end, of five trainings after one that fills the driver's cache
trial() {
    local i start
    for i in 0 1 2 3 4 5; do
        start=$(date +%s.%N)
        train specs/ppo/ppo_cartpole.json --seed "$i" >"$work/train.txt" 2>&1 || { cat "$work/train.txt" && return 1; }
        python3 -c "import time; print(f'training $i of 4 sessions: {time.time() - $start:.2f} s from start to end')"
    done
    tail -n 4 "$work/train.txt"
}

# two thousand agents at once, with every file that they write
agents() {
    time train benches/ppo_cartpole_purejaxrl.json --seed 1 --set meta.max_session=2048 --set meta.log_frequency=100000
}

jax() {
    python3 tools/peers/ppo_jax.py --json "$out/jax.jsonl" --seeds 1 256 2048 --repeats 2 &&
        python3 tools/peers/ppo_jax.py --json "$out/jax.jsonl" --envs 2048 --steps 32 --frames 20000000 --seeds 1 \
            --repeats 2
}

# torch.compile makes its kernels with Triton, which needs a C compiler and Python's headers; without, eager kernels
torch() {
    local mode=default
    python3 -c 'import torch; torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device="cuda"))' || mode=none
    python3 tools/peers/ppo_torch.py --check &&
        python3 tools/peers/ppo_torch.py --compile "$mode" --json "$out/torch.jsonl" --seeds 1 256 2048 --repeats 2 &&
        python3 tools/peers/ppo_torch.py --compile "$mode" --json "$out/torch.jsonl" --envs 2048 --steps 32 \
            --frames 20000000 --seeds 1 --repeats 2
}

devices() {
    nvidia-smi && "$pack/slm-fast" devices && cat "$pack/commit"
}

export -f specs sanitize train trial agents jax torch devices
export pack out work

stage devices 30 bash -c devices
stage tests 240 "$pack/tests/cuda_device" --test-threads 4
stage specs 150 bash -c 'specs cuda'
stage specs_wgpu 150 bash -c 'specs wgpu'
stage ops 180 "$pack/benches/ops" --device cuda
stage training 240 "$pack/benches/training" --device cuda
for test in wgpu_lib wgpu_wide wgpu_lanes wgpu_device wgpu_loss; do SLM_REQUIRE=wgpu stage wgpu 200 "$pack/tests/$test"; done
stage ops_wgpu 150 "$pack/benches/ops" --device wgpu
stage training_wgpu 200 "$pack/benches/training" --device wgpu
stage ratio 10 python3 tools/gpu_ratio.py "$SLM_FAST_BENCH_CSV"
replay_ops="sample prioritize td_grad target critic_grad actor_grad crossq_grad fold"
recurrent_ops="recurrent_rollout sequence_order sequence_grad sequence_td_grad imitate episode_returns"
policy_ops="schedule rollout log advantage shuffle minibatch_grad optimize obs_moments"
if command -v compute-sanitizer >/dev/null; then
    stage memcheck 240 bash -c "sanitize memcheck $replay_ops $recurrent_ops $policy_ops"
    stage racecheck 200 bash -c "sanitize racecheck $replay_ops $recurrent_ops $policy_ops"
    stage initcheck 120 bash -c "sanitize initcheck $replay_ops $recurrent_ops $policy_ops"
    stage synccheck 120 bash -c "sanitize synccheck $replay_ops $recurrent_ops $policy_ops"
else
    for tool in memcheck racecheck initcheck synccheck; do absent "$tool" "compute-sanitizer is not here"; done
fi
stage trial 60 bash -c trial
stage agents 90 bash -c agents
# a search in one cohort against its trials one after another
stage search 200 python3 tools/cohort.py --program "$pack/slm-fast" --device cuda --alone 8 specs/ppo/ppo_cartpole_search.json
stage curves 300 python3 tools/gpu_curves.py --program "$pack/slm-fast" --out "$out/curves" specs/ppo/ppo_cartpole.json \
    specs/a2c/a2c_cartpole.json specs/ppo/ppo_pendulum.json
if python3 -c 'import jax, flax, optax' 2>/dev/null; then
    stage jax 400 bash -c jax
else
    absent jax "jax, flax or optax is not here"
fi
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    stage torch 400 bash -c torch
else
    absent torch "torch with CUDA is not here"
fi
stage soak $((soak + 60)) python3 tools/gpu_soak.py --program "$pack/slm-fast" --seconds "$soak"

[ -e "$SLM_FAST_BENCH_CSV" ] && echo "figures in $SLM_FAST_BENCH_CSV" >>"$out/log.txt"
printf '\n'
cat "$out/table.md"
