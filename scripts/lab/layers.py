"""MoE layers on 8 ranks, 4 hosts of 2 in two leaves: predicted (`headway verify`) and simulated (`headway alltoall` of the
matrices that ran) against the lab. What the ranks' processor and the transport make of it is fitted on a star, at k = 4."""

import statistics
from collections import defaultdict

from exchanges import fit
from lab import SCALE, call, in_lab, quantiles, read_csv, simulate, summary, write_csv, write_matrix

RANKS = 8
PLANS = ("ep_naive", "ep_rank", "ep_node", "hp")
EXCHANGES = ("dispatch", "combine", "head_scatter", "head_gather")
# (k, oversubscription), none of them a star
ROUNDS = 1
CASES = [(k, 2) for k in range(1, 9)] + [(k, over) for over in (1, 4) for k in (2, 4, 8)]

CLUSTER = """
name: {name}
device: {{name: CPU, peak_matmul: 100 TFLOP/s, memory_bandwidth: 10 TB/s, memory: 16 GiB}}
reserve: {{context: 0 B, communicator: 0 B, fragmentation: 0 %}}
nodes: {nodes}
gpus_per_node: {gpus}
pcie: {{bandwidth: 40 Gbps, latency: 50 us}}
fabric: {{nics_per_node: {gpus}, nic: 4 Gbps, nic_latency: 50 us, spine_latency: 50 us{leaves}}}
"""
SCENARIO = """
model:
  name: lab
  vocab_size: 1024
  hidden: 256
  num_layers: 2
  attention: {{num_heads: 8, num_kv_heads: 8, head_width: 32}}
  moe: {{num_experts: 32, top_k: {k}, expert_width: 16, activation: swiglu}}
  dtype: fp32
cluster: {cluster}
batch: {{sequence_length: 1024}}
plans:
  - {{name: ep_naive, expert_parallel: {{}}, group_size: 8}}
  - {{name: ep_rank, expert_parallel: {{dedup: rank}}, group_size: 8}}
  - {{name: ep_node, expert_parallel: {{dedup: node}}, group_size: 8}}
  - {{name: hp, head_parallel: {{num_heads: 8}}, group_size: 8}}
baseline: ep_naive
"""


def with_scale(arguments, words, file):
    """What headway-lab writes for a file: the same with the lab's bandwidths."""
    scaled = file.with_name(file.stem + "_scaled.yaml")
    lab = [arguments.bin / "headway-lab", *words, file, "--scale", SCALE, "--quiet"]
    call([*lab, "--write", scaled])
    return scaled


def cluster(arguments, name, leaves="", nodes=4, gpus=2):
    """Its file, and the one with the lab's bandwidths."""
    file = arguments.results / f"{name}_cluster.yaml"
    file.write_text(CLUSTER.format(name=name, leaves=leaves, nodes=nodes, gpus=gpus))
    return file, with_scale(arguments, [], file)


def scenario(arguments, name, k, cluster_file):
    file = arguments.results / f"{name}.yaml"
    file.write_text(SCENARIO.format(k=k, cluster=cluster_file.name))
    return file, with_scale(arguments, ["--scenario"], file)


def run_layers(arguments, name, file, number):
    """Round `number` of a scenario; one that is there is not repeated."""
    measured = arguments.results / f"{name}_round{number}.csv"
    if measured.exists():
        return measured
    bytes_prefix = arguments.results / f"bytes_{name}"
    words = [arguments.bin / "headway-run", file, "-o", measured, "--matrices", bytes_prefix]
    command = [*words, "--warmup", 1, "--repeats", arguments.repeats]
    in_lab(arguments, ("--scenario", file), command, arguments.results / f"counters_{name}.csv")
    return measured


def measure_curve(arguments, name, ranks, nodes, gpus, sizes):
    """[bytes that a rank sends, seconds measured, seconds simulated] of even exchanges."""
    file, scaled = cluster(arguments, name, nodes=nodes, gpus=gpus)
    matrices = []
    for kib in sizes:
        rows = [[0 if i == j else kib * 1024 for j in range(ranks)] for i in range(ranks)]
        matrices.append(write_matrix(arguments.results / f"{name}_{kib}.csv", rows))
    times = arguments.results / f"{name}_times.csv"
    words = [arguments.bin / "headway-exchange", "--repeats", 9, "-o", times]
    for matrix in matrices:
        words += ["--matrix", matrix]
    in_lab(arguments, (file,), words, arguments.results / f"counters_{name}.csv")
    seconds = defaultdict(list)
    for row in read_csv(times):
        seconds[row["matrix"]].append(float(row["seconds"]))
    return [
        (
            int(m.stem.split("_")[-1]) * 1024 * (ranks - 1),
            quantiles(seconds[str(m)])[0],
            simulate(arguments, scaled, m)[0],
        )
        for m in matrices
    ]


def curve_text(path, ranks, link, points):
    sizes = ", ".join(f"{p[0]} B" for p in points)
    # Short ones are mostly the wait for a processor, which may fall by chance.
    rising = [max(q[1] for q in points[: i + 1]) for i in range(len(points))]
    times = ", ".join(f"{1e3 * t:.6g} ms" for t in rising)
    return (
        f"  - {{collective: all_to_all, path: {path}, num_ranks: {ranks}, link: {link}, bytes: [{sizes}], "
        f'time: [{times}], residual: 3 %, source: "headway-exchange in the lab, even, a star"}}\n'
    )


def calibrate(arguments):
    """The profile, and start and share of the transport over the NICs."""
    cluster_file, _ = cluster(arguments, "star")
    file, scaled = scenario(arguments, "star_layers", 4, cluster_file)
    base, profile = arguments.results / "base.yaml", arguments.results / "profile.yaml"
    headway = arguments.bin / "headway"
    if not base.exists():
        # For what the layers' Timeline has no sample of, a small grid will do.
        small = arguments.results / "small.yaml"
        small.write_text(file.read_text().replace("sequence_length: 1024", "sequence_length: 64"))
        words = [headway, "calibrate", small, "--device", "cpu", "--ranks", 2, "--passes", 1]
        call([*words, "-o", base])
    measured = run_layers(arguments, "star", file, 1)
    call(
        [
            headway,
            "calibrate",
            scaled,
            "--from",
            measured,
            "--ranks",
            RANKS,
            "--base",
            base,
            "-o",
            profile,
        ]
    )
    over_nic = measure_curve(arguments, "nics", RANKS, RANKS, 1, (64, 128, 256, 512, 1024))
    inside = measure_curve(arguments, "node", 2, 1, 2, (64, 512, 4096))
    text = profile.read_text()
    begin, end = text.index("communication:"), text.index("overheads:")
    curves = "".join(curve_text(path, RANKS, "12.5 MB/s", over_nic) for path in ("nic", "spine"))
    curves += curve_text("pcie", 2, "125 MB/s", inside)
    profile.write_text(text[:begin] + "communication:\n" + curves + text[end:])
    return profile, fit([{"simulated_s": p[2], "measured_s": p[1]} for p in over_nic])


def phase_times(rows, source, plan):
    """{(pass, phase): (slowest rank's seconds, p10, p90)} of one layer."""
    result = {}
    for row in rows:
        if row["source"] != source or row["plan"] != plan:
            continue
        key = (row["pass"], row["phase"])
        value = tuple(float(row[c]) for c in ("duration_s", "low_s", "high_s"))
        result[key] = max(result.get(key, (0.0,)), value)
    return result


def median_times(files, plan):
    """The median of the rounds, phase by phase: a minute in which the machine served others does not count."""
    rounds = [phase_times(read_csv(file), "measured", plan) for file in files]
    return {
        key: tuple(statistics.median(r[key][i] for r in rounds) for i in range(3))
        for key in rounds[0]
    }


def simulated_exchange(arguments, name, scaled_cluster, plan, phase, direction, transport):
    """Node-dedup's two stages, over NICs and inside nodes, follow each other."""
    file = arguments.results / f"bytes_{name}_{plan}_{phase}_{direction}.csv"
    matrix = [
        [int(cell) for cell in row]
        for row in (line.split(",") for line in file.read_text().split())
    ]
    staged = plan == "ep_node"
    total = 0.0
    for crosses in (True, False) if staged else (None,):
        part = [
            [
                b if crosses is None or (i // 2 != j // 2) == crosses else 0
                for j, b in enumerate(row)
            ]
            for i, row in enumerate(matrix)
        ]
        stage = write_matrix(arguments.results / "stage.csv", part)
        total += simulate(arguments, scaled_cluster, stage)[0] / transport[1] + transport[0]
    return total


def exchanges_of(times):
    return sum(t[0] for (_, phase), t in times.items() if phase in EXCHANGES)


def judge(arguments, name, scaled, scaled_cluster, rounds, profile, transport):
    both = arguments.results / f"both_{name}.csv"
    words = [arguments.bin / "headway", "verify", scaled, "--profile", profile]
    words += ["--measured", rounds[0]]
    call([*words, "--tolerance", 100000, "--csv", both])
    rows = read_csv(both)
    layers = {}
    for plan in PLANS:
        run, model = median_times(rounds, plan), phase_times(rows, "predicted", plan)
        simulated_exchanges = sum(
            simulated_exchange(arguments, name, scaled_cluster, plan, phase, direction, transport)
            for direction, phase in model
            if phase in EXCHANGES
        )
        predicted = sum(t[0] for t in model.values())
        layers[plan] = {
            "predicted_s": predicted,
            "simulated_s": predicted - exchanges_of(model) + simulated_exchanges,
            "measured_s": sum(t[0] for t in run.values()),
            "p10_s": sum(t[1] for t in run.values()),
            "p90_s": sum(t[2] for t in run.values()),
            "exchanges_predicted_s": exchanges_of(model),
            "exchanges_simulated_s": simulated_exchanges,
            "exchanges_measured_s": exchanges_of(run),
        }
    return layers


def rows_of(k, over, layers):
    rows = []
    for plan, times in layers.items():
        row = {
            "k": k,
            "oversubscription": over,
            "plan": plan,
            **{key: f"{v:.5f}" for key, v in times.items()},
        }
        for what in ("predicted", "simulated"):
            row[f"{what}_error"] = f"{times[f'{what}_s'] / times['measured_s'] - 1:.4f}"
            apart = times[f"exchanges_{what}_s"] / times["exchanges_measured_s"] - 1
            row[f"exchanges_{what}_error"] = f"{apart:.4f}"
        for what in ("predicted", "simulated", "measured"):
            row[f"{what}_speedup"] = f"{layers['ep_naive'][f'{what}_s'] / times[f'{what}_s']:.4f}"
        rows.append(row)
    return rows


def run(arguments):
    profile, transport = calibrate(arguments)
    inputs, rounds = {}, defaultdict(list)
    for k, over in CASES:
        name = f"k{k}_over{over}"
        leaves = f", nodes_per_leaf: 2, oversubscription: {over}"
        cluster_file, scaled_cluster = cluster(arguments, name, leaves)
        inputs[k, over] = (name, *scenario(arguments, name, k, cluster_file), scaled_cluster)
    for number in range(1, ROUNDS + 1):
        for case, (name, file, _, _) in inputs.items():
            rounds[case].append(run_layers(arguments, name, file, number))
    rows = []
    for (k, over), (name, _, scaled, scaled_cluster) in inputs.items():
        layers = judge(arguments, name, scaled, scaled_cluster, rounds[k, over], profile, transport)
        rows += rows_of(k, over, layers)
        for row in rows[-len(PLANS) :]:
            print(
                k,
                over,
                row["plan"],
                row["predicted_s"],
                row["simulated_s"],
                row["measured_s"],
                flush=True,
            )
        write_csv(arguments.results / "layers.csv", rows)
    print(
        f"transport over NICs, fitted on a star: {1e3 * transport[0]:.2f} ms and {transport[1]:.1%} of a link"
    )
    for what in ("predicted", "simulated"):
        print(summary(f"{what} layers", [float(r[f"{what}_error"]) for r in rows]))
        apart = [float(r[f"exchanges_{what}_error"]) for r in rows]
        print(summary(f"{what} exchanges of layers", apart))
        speedups = [
            float(r[f"{what}_speedup"]) / float(r["measured_speedup"]) - 1
            for r in rows
            if r["plan"] != "ep_naive"
        ]
        print(summary(f"{what} speedups over ep_naive", speedups))
    pairs = [(rows[i + 1], rows[i + 2]) for i in range(0, len(rows), len(PLANS))]
    for part in ("", "exchanges_"):
        for what in ("predicted", "simulated"):
            right = sum(
                (float(a[f"{part}{what}_s"]) < float(b[f"{part}{what}_s"]))
                == (float(a[f"{part}measured_s"]) < float(b[f"{part}measured_s"]))
                for a, b in pairs
            )
            print(
                f"by rank or by node, {part}{what} in the measured order: {right} of {len(pairs)}"
            )
