"""Which transport CPU ranks exchange with: three exchanges of 4 hosts on a star, over Gloo, a thread a connection, and
Open MPI. Needs libgloo-dev, libopenmpi-dev and openmpi-bin."""

import tempfile
from pathlib import Path

from exchanges import cluster
from lab import call, first_in_line, quantiles, simulate, write_csv, write_matrix

SOURCE = Path(__file__).resolve().parents[2] / "tests/bench/bench_exchange.cpp"
MB = 1_000_000
MATRICES = {
    "even": [[0 if i == j else 2 * MB for j in range(4)] for i in range(4)],
    "skewed": [[0 if i == j else (4 * MB if j == 0 else MB) for j in range(4)] for i in range(4)],
    "both_ways": [[6 * MB if i + j == 3 else 0 for j in range(4)] for i in range(4)],
}
# mpirun reaches another host as ssh would: by a process that is there. $1 is the host.
AGENT = """#!/bin/bash
host=$1; shift
exec nsenter --net --uts --target "$(cat {folder}/pid.$host)" env TMPDIR={folder}/$host bash -c "$*"
"""
# The launcher's variables of the lab would be taken for MPI's.
MPI_RANK = """
echo $$ > {folder}/pid.$(hostname); mkdir -p {folder}/$(hostname)
if [ "$RANK" != 0 ]; then while [ ! -e {folder}/done ]; do sleep 0.1; done; exit 0; fi
while [ $(ls {folder}/pid.* | wc -l) -lt 4 ]; do sleep 0.1; done
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
TMPDIR={folder}/gpu0 timeout 120 mpirun --allow-run-as-root --host gpu0,gpu1,gpu2,gpu3 -np 4 \\
    --mca plm_rsh_agent {folder}/agent --mca oob_tcp_if_include 10.21.0.0/16 \\
    --mca btl_tcp_if_include 10.20.0.0/16 --mca btl self,tcp --mca pml ob1 --mca mpi_yield_when_idle 1 \\
    {program} mpi {matrix} {repeats} {folder}
code=$?; touch {folder}/done; exit $code
"""


def build(folder):
    flags = ["-O2", "-std=c++20", "-Wall", SOURCE, "-o"]
    call(["g++", *flags, folder / "bench_exchange", "-lgloo", "-lpthread"])
    call(["mpicxx", "-DWITH_MPI", *flags, folder / "bench_exchange_mpi"])


def measure(arguments, programs, engine, source, matrix):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [programs / "bench_exchange", engine, matrix, arguments.repeats, folder]
        if engine == "mpi":
            agent = folder / "agent"
            agent.write_text(AGENT.format(folder=folder))
            agent.chmod(0o755)
            words = {"folder": folder, "program": programs / "bench_exchange_mpi"}
            text = MPI_RANK.format(matrix=matrix, repeats=arguments.repeats, **words)
            command = ["bash", "-c", text]
        lab = [arguments.bin / "headway-lab", source, "--scale", "1/40", "--quiet", "--"]
        done = call([*lab, *command], preexec_fn=first_in_line)
        return [float(line) for line in done.stdout.split()]


def run(arguments):
    folder = arguments.results.resolve()
    build(folder)
    source, scaled = folder / "star.yaml", folder / "star_scaled.yaml"
    source.write_text(cluster("star", 4, ""))
    call([arguments.bin / "headway-lab", source, "--scale", "1/40", "--quiet", "--write", scaled])
    rows = []
    for name, cells in MATRICES.items():
        matrix = write_matrix(folder / f"{name}.csv", cells)
        ideal, _ = simulate(arguments, scaled, matrix)
        for engine in ("gloo", "threads", "mpi"):
            median, low, high = quantiles(measure(arguments, folder, engine, source, matrix))
            numbers = {
                "ideal_s": ideal,
                "median_s": median,
                "p10_s": low,
                "p90_s": high,
                "over": median / ideal - 1,
            }
            rows.append(
                {"matrix": name, "engine": engine, **{k: f"{v:.4f}" for k, v in numbers.items()}}
            )
            print(rows[-1], flush=True)
    write_csv(folder / "engines.csv", rows)
