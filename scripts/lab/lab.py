"""Programs of headway run on a cluster that headway-lab builds, and small statistics."""

import csv
import json
import os
import statistics
import subprocess
from pathlib import Path

SCALE = "1/40"  # clusters are described at the speed of real ones


def first_in_line():
    """Before other sessions of a machine that others use: Linux shares its cores out by session before niceness."""
    os.setsid()
    os.nice(-10)
    autogroup = Path("/proc/self/autogroup")
    if autogroup.exists():
        autogroup.write_text("-10")


def call(words, check=True, **options):
    words = [str(w) for w in words]
    done = subprocess.run(words, text=True, capture_output=True, **options)
    if check and done.returncode != 0:
        raise SystemExit(f"verify_lab: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done


def in_lab(arguments, source, command, counters):
    """`command` on every rank of a cluster or scenario; what every link has carried, by its name."""
    words = [arguments.bin / "headway-lab", *source, "--scale", SCALE, "--quiet"]
    call([*words, "--counters", counters, "--", *command], preexec_fn=first_in_line)
    return {row["link"]: float(row["bytes"]) for row in read_csv(counters)}


def simulate(arguments, scaled_cluster, matrix):
    """headway alltoall: seconds, and bytes by link."""
    words = [arguments.bin / "headway", "alltoall", "--matrix", matrix, "--cluster", scaled_cluster]
    result = json.loads(call([*words, "--format", "json"]).stdout)
    return result["completion_s"], {link["name"]: link["bytes"] for link in result["links"]}


def write_matrix(file, matrix):
    file.write_text("\n".join(",".join(map(str, row)) for row in matrix) + "\n")
    return file


def read_csv(file):
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def write_csv(file, rows):
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def quantiles(values):
    """Median, p10, p90."""
    ordered = sorted(values)
    at = lambda q: ordered[round(q * (len(ordered) - 1))]  # noqa: E731
    return statistics.median(ordered), at(0.1), at(0.9)


def summary(name, errors):
    sizes = [abs(e) for e in errors]
    return (
        f"{name}: {len(sizes)} cases, median {statistics.median(sizes):.1%}, worst {max(sizes):.1%}"
    )
