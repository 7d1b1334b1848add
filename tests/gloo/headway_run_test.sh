#!/usr/bin/env bash
# headway-run on CPU ranks that are processes: the launch variables of torchrun, Open MPI and Slurm, the bytes of the threads,
# and a rank that dies.
# usage: headway_run_test.sh HEADWAY_RUN SCENARIO
set -uo pipefail
run=$1 scenario=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
port=$((20000 + $$ % 10000))
small=(--tokens 32 --warmup 0 --repeats 1)

die() { echo "$1"; cat "$dir"/text.* 2>/dev/null; exit 1; }

# ranks LAUNCHER ARGS...: two ranks; `codes` are their exit codes, and $dir/text.RANK what they said.
ranks() {
    local launcher=$1 r pids=(); shift
    port=$((port + 2))
    for r in 0 1; do
        case $launcher in
            torchrun) variables=(RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port) ;;
            mpi) variables=(OMPI_COMM_WORLD_RANK=$r OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=$r
                OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=$port) ;;
            slurm) variables=(SLURM_PROCID=$r SLURM_NTASKS=2 SLURM_STEP_ID=0 SLURM_JOB_ID=$port SLURM_LOCALID=$r
                SLURM_STEP_NODELIST=localhost) ;;
        esac
        env "${variables[@]}" "$run" "$scenario" "${small[@]}" "$@" >"$dir/text.$r" 2>&1 &
        pids+=($!)
    done
    codes=
    for r in 0 1; do wait "${pids[r]}"; codes+="$? "; done
}

for launcher in torchrun mpi slurm; do
    ranks $launcher -o "$dir/$launcher.csv" --matrices "$dir/net"
    [ "$codes" = "0 0 " ] || die "$launcher: exit codes $codes"
    [ "$(grep -c '^measured,hp,1,' "$dir/$launcher.csv")" = 15 ] || die "$launcher: not 15 spans of rank 1"
done

# The bytes that threads exchange.
"$run" "$scenario" "${small[@]}" -o "$dir/threads.csv" --matrices "$dir/threads" >/dev/null 2>&1 || die "threads"
for file in "$dir"/threads_*_*.csv; do
    cmp -s "$file" "${file/threads_/net_}" || die "other bytes: $(basename "$file")"
done
[ "$(ls "$dir" | grep -c '^net_')" = "$(ls "$dir" | grep -c '^threads_')" ] || die "other exchanges: $(ls "$dir")"

# A rank that dies (one that stops: gloo_communicator_test.cpp): the other one ends within 15 s, and says which, where and why.
rm -f "$dir"/*.csv
for fault in throw kill; do
    start=$SECONDS
    ranks torchrun -o "$dir/out.csv" --inject-fault $fault:1:expert
    [ $((SECONDS - start)) -le 15 ] || die "$fault: $((SECONDS - start)) s"
    [ "${codes%% *}" = 4 ] || die "$fault: exit codes $codes"
    grep -q "headway-run: rank 0: error: rank 1 failed in phase expert (forward): " "$dir/text.0" || die "$fault: not named"
    [ ! -e "$dir/out.csv" ] || die "$fault: a file is left"
done

# A single rank of a launcher runs all ranks as threads, as before.
env RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$run" "$scenario" "${small[@]}" -o "$dir/out.csv" >"$dir/text.0" 2>&1 ||
    die "one rank"
# Ranks that do not fit are refused by all.
ranks torchrun -o "$dir/out.csv" --ranks 4
[ "$codes" = "2 2 " ] || die "4 of 2 ranks: $codes"
