#!/usr/bin/env bash
# The command itself: a good run leaves a whole file, a failing rank or bad input leaves none.
# usage: headway_run_test.sh HEADWAY_RUN SCENARIO
set -uo pipefail
run=$1 scenario=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
out=$dir/measured.csv
small=(--tokens 32 --warmup 0 --repeats 1 --plan ep_naive -o "$out")

expect() {  # EXIT_CODE MESSAGE ARGS...: no file may be left, not even a hidden part of one
    local code=$1 message=$2; shift 2
    text=$("$run" "$scenario" "$@" 2>&1); got=$?
    [ "$got" = "$code" ] || { echo "exit code $got, expected $code: $text"; exit 1; }
    grep -qF -- "$message" <<<"$text" || { echo "no '$message' in: $text"; exit 1; }
    [ -z "$(ls -A "$dir")" ] || { echo "left behind: $(ls -A "$dir")"; exit 1; }
}

expect 4 "rank 1 failed in phase expert (forward): injected fault" "${small[@]}" --inject-fault throw:1:expert
expect 4 "rank 0 failed in phase dispatch (forward): stalled" "${small[@]}" --deadline 2 --inject-fault stall:0:dispatch
expect 2 "accepted: 1, 2, 4, 8, 16 ranks" "${small[@]}" --ranks 3
expect 2 "too large for this CPU" --repeats 1 --plan ep_naive -o "$out" --tokens 1000000000
expect 2 "--inject-fault" "${small[@]}" --inject-fault burn
expect 2 "did you mean" --plan ep_naiv -o "$out"
expect 2 "no out"

"$run" "$scenario" "${small[@]}" >/dev/null 2>"$dir/stderr" || exit 1
! grep "not executed" "$dir/stderr" || { echo "nothing was left out"; exit 1; }
grep -q '^measured,ep_naive,1,0,0,backward,expert,' "$out" || { echo "no backward expert span"; exit 1; }

# Two nodes of two ranks: node-dedup runs on all of them, and a rank that fails there is named.
nodes=$(dirname "$scenario")/cpu_nodes.yaml
rm -f "$out" "$dir/stderr"
small=(--tokens 32 --warmup 0 --repeats 1 --plan ep_node -o "$out")
scenario=$nodes expect 4 "rank 3 failed in phase combine (forward): injected fault" "${small[@]}" --inject-fault throw:3:combine
"$run" "$nodes" "${small[@]}" >/dev/null || exit 1
[ "$(grep -c '^measured,ep_node,3,' "$out")" = 18 ] || { echo "not 18 spans of rank 3: $(cat "$out")"; exit 1; }

small=(--tokens 32 --warmup 0 --repeats 1 --plan ep_naive -o "$out")

# The bytes between ranks are those of `headway matrix`: rows as many as ranks, the sum that EP sends.
"$run" "$scenario" "${small[@]}" --matrices "$dir/bytes" >/dev/null 2>&1 || exit 1
[ "$(wc -l <"$dir/bytes_ep_naive_dispatch_forward.csv")" = 2 ] || { echo "no matrix of the dispatch: $(ls "$dir")"; exit 1; }
cmp -s <(tr ',' '\n' <"$dir/bytes_ep_naive_dispatch_forward.csv" | sort) <(tr ',' '\n' <"$dir/bytes_ep_naive_combine_forward.csv" | sort) ||
    { echo "the combine does not return what was dispatched"; exit 1; }

# What is not executed is said.
sed 's/expert_parallel: {}/recompute: full, overlap_chunks: 2, expert_parallel: {}/' "$scenario" >"$dir/step.yaml"
"$run" "$dir/step.yaml" "${small[@]}" >/dev/null 2>"$dir/stderr" || exit 1
grep -qF "plan ep_naive: recompute: full, overlap_chunks: 2 is not executed" "$dir/stderr" ||
    { echo "silent about recompute: $(cat "$dir/stderr")"; exit 1; }

# Whole steps: a loss for each, the step's time in the head, and what a step cannot do is refused, not skipped.
"$run" "$scenario" --tokens 16 --steps 2 --warmup 1 --repeats 1 -o "$out" --losses "$dir/losses.csv" >/dev/null || exit 1
[ "$(grep -c '^hp,[1-4],[0-9.]*$' "$dir/losses.csv")" = 4 ] || { echo "not 4 losses: $(cat "$dir/losses.csv")"; exit 1; }
[ "$(grep -c '^# step: .*,2$' "$out")" = 3 ] || { echo "no step times: $(head -20 "$out")"; exit 1; }
grep -q '^measured,hp,1,-1,0,update,optimizer,' "$out" || { echo "no optimizer"; exit 1; }
# Every micro-batch of every layer, and one forward more under recompute.
sed 's/expert_parallel: {}/recompute: full, expert_parallel: {}/; s/^batch: {/batch: {num_micro_batches: 2, /' "$scenario" >"$dir/again.yaml"
"$run" "$dir/again.yaml" --tokens 16 --steps 1 --warmup 0 --repeats 1 --plan ep_naive -o "$out" >/dev/null || exit 1
[ "$(grep -c '^measured,ep_naive,1,0,[01],backward,dispatch,' "$out")" = 2 ] || { echo "not two micro-batches: $(cat "$out")"; exit 1; }
asks=$(mktemp)
mv "$dir/step.yaml" "$asks" && rm -f "$dir"/*
scenario=$asks expect 2 "overlap_chunks: 2" --tokens 16 --steps 2 --plan ep_naive -o "$out"
rm -f "$asks"
expect 2 "--data without --steps" "${small[@]}" --data x
expect 2 "--layers with --steps" --steps 2 --layers 2 -o "$out"
expect 2 "--check with --device cpu" --steps 2 --check -o "$out"
expect 2 "--no-graph with --steps" --steps 2 --no-graph -o "$out"
expect 2 "256: tokens are bytes" --tokens 16 --steps 2 --data "$scenario" -o "$out"
expect 4 "rank 1 failed in phase attention_core (forward)" --tokens 16 --steps 2 --warmup 0 -o "$out" \
    --inject-fault throw:1:attention_core
