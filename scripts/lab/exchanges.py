"""Bare exchanges: `headway alltoall` on the scaled cluster against the lab."""

import random

from lab import call, in_lab, quantiles, read_csv, simulate, summary, write_csv, write_matrix

SEED = 20261130
DEVICE = "device: {name: CPU, peak_matmul: 1 TFLOP/s, memory_bandwidth: 1 TB/s, memory: 1 GiB}"
LATENCIES = "nic_latency: 0 us, spine_latency: 0 us"


def cluster(name, hosts, fabric, extra=""):
    """A GPU a node; the NIC at 4 Gbps is one of 100 Mbit/s in the lab, half of it for 16 hosts."""
    nic = "2 Gbps" if hosts == 16 else "4 Gbps"
    return (
        f"name: {name}\n{DEVICE}\nnodes: {hosts}\ngpus_per_node: 1\n"
        f"fabric: {{nics_per_node: 1, nic: {nic}, {LATENCIES}{fabric}}}\n{extra}"
    )


def slow_rail(hosts, nic):
    """Two GPUs and two rails a node, other rails over the neighbour. Over a dead card ranks cannot even connect."""
    return (
        f"name: slow_rail\n{DEVICE}\nnodes: {hosts // 2}\ngpus_per_node: 2\n"
        f"nvlink: {{domain: 2, bandwidth: 2 GB/s, latency: 0 us}}\n"
        f"fabric: {{nics_per_node: 2, nic: 4 Gbps, rails: true, {LATENCIES}}}\n"
        f"link_overrides: [{{link: nic:{nic}, bandwidth_factor: 0.5}}]\n"
    )


def topology(kind, hosts, draw):
    slow = f"link_overrides: [{{link: nic:{draw.randrange(hosts)}, bandwidth_factor: {draw.choice((0.25, 0.5))}}}]\n"
    if kind == "slow_rail":
        return slow_rail(hosts, draw.randrange(hosts))
    if kind == "star":
        return cluster(kind, hosts, "")
    if kind == "slow_nic":
        return cluster(kind, hosts, "", slow)
    leaves = f", nodes_per_leaf: {hosts // 2}, oversubscription: {kind.split('_')[-1]}"
    return cluster(kind, hosts, leaves)


def matrix_of(kind, hosts, draw):
    """Bytes from each rank (row) to each rank, about 6 MB a rank."""
    mean = 6e6 / (hosts - 1)
    if kind == "pairs":
        order = draw.sample(range(hosts), hosts)
        partner = {order[i]: order[i ^ 1] for i in range(hosts)}
        return [[6_000_000 if partner[i] == j else 0 for j in range(hosts)] for i in range(hosts)]
    weight = [1.0] * hosts
    if kind == "skewed":
        for hot in draw.sample(range(hosts), max(1, hosts // 8)):
            weight[hot] = draw.uniform(2, 5)
    spread = 0.8 if kind == "random" else 0.0
    size = lambda i, j: 0 if i == j else int(mean * weight[j] * draw.lognormvariate(0, spread))  # noqa: E731
    return [[size(i, j) for j in range(hosts)] for i in range(hosts)]


def draw_cases():
    """The ones to fit the transport on, and those to judge."""
    draw = random.Random(SEED)
    kinds = ("star", "leaves_1", "leaves_2", "leaves_4", "slow_nic", "slow_rail")
    cases = [
        ("fit", 4, "star", "even", [[0 if i == j else size for j in range(4)] for i in range(4)])
        for size in (200_000, 700_000, 2_000_000, 5_000_000)
    ]
    for number in range(44):
        kind = kinds[number % len(kinds)]
        hosts = 8 if kind == "slow_rail" else draw.choice((4, 8, 8, 16))
        shape = draw.choice(("even", "skewed", "random", "pairs"))
        matrix = matrix_of(shape, hosts, draw)
        cases.append(("unseen", hosts, kind, shape, matrix))
    return [
        {
            "set": s,
            "hosts": h,
            "topology": t,
            "matrix": m,
            "bytes": b,
            "cluster": topology(t, h, draw),
        }
        for s, h, t, m, b in cases
    ]


def prepare(arguments, number, case):
    folder = arguments.results / f"case_{number:02d}"
    folder.mkdir(exist_ok=True)
    case["folder"] = folder
    (folder / "cluster.yaml").write_text(case["cluster"])
    write_matrix(folder / "matrix.csv", case["bytes"])
    words = [arguments.bin / "headway-lab", folder / "cluster.yaml", "--scale", "1/40", "--quiet"]
    call([*words, "--write", folder / "scaled.yaml"])
    case["simulated_s"], case["links"] = simulate(
        arguments, folder / "scaled.yaml", folder / "matrix.csv"
    )


def measure(arguments, case):
    folder = case["folder"]
    times = folder / "times.csv"
    words = [arguments.bin / "headway-exchange", "--matrix", folder / "matrix.csv", "--warmup", 1]
    carried = in_lab(
        arguments,
        (folder / "cluster.yaml",),
        [*words, "--repeats", arguments.repeats, "-o", times],
        folder / "counters.csv",
    )
    case["measured_s"], case["p10_s"], case["p90_s"] = quantiles(
        [float(r["seconds"]) for r in read_csv(times)]
    )
    passes = arguments.repeats + 1
    # Barriers are the most of what links with little on them carry.
    busiest = max(case["links"].values())
    over = [
        carried[link] / (passes * b) - 1 for link, b in case["links"].items() if b > busiest / 20
    ]
    case["link_bytes_low"], case["link_bytes_high"] = min(over), max(over)


def fit(cases):
    """start and share of measured = start + simulated / share, least squares of the relative error."""
    x = [c["simulated_s"] / c["measured_s"] for c in cases]
    u = [1 / c["measured_s"] for c in cases]
    a, b, d = sum(v * v for v in u), sum(v * w for v, w in zip(u, x)), sum(w * w for w in x)
    e, f = sum(u), sum(x)
    start = (e * d - b * f) / (a * d - b * b)
    return start, 1 / ((a * f - b * e) / (a * d - b * b))


def judged(number, case, start, share):
    simulated, measured = case["simulated_s"], case["measured_s"]
    predicted = start + simulated / share
    numbers = {
        "simulated_s": simulated,
        "measured_s": measured,
        "p10_s": case["p10_s"],
        "p90_s": case["p90_s"],
        "simulated_error": simulated / measured - 1,
        "with_transport_s": predicted,
        "error": predicted / measured - 1,
        "link_bytes_low": case["link_bytes_low"],
        "link_bytes_high": case["link_bytes_high"],
    }
    words = {key: case[key] for key in ("set", "hosts", "topology", "matrix")}
    return {"case": number, **words, **{key: f"{value:.5f}" for key, value in numbers.items()}}


def run(arguments):
    cases = draw_cases()
    for number, case in enumerate(cases):
        prepare(arguments, number, case)
    keys = ("set", "hosts", "topology", "matrix", "simulated_s")
    write_csv(arguments.results / "simulated.csv", [{k: c[k] for k in keys} for c in cases])
    for number, case in enumerate(cases):
        measure(arguments, case)
        print(
            f"{number:2} {case['hosts']:2} {case['topology']:9} {case['matrix']:7}"
            f" simulated {case['simulated_s']:.3f} s, measured {case['measured_s']:.3f} s",
            flush=True,
        )
    start, share = fit([c for c in cases if c["set"] == "fit"])
    rows = [judged(number, case, start, share) for number, case in enumerate(cases)]
    write_csv(arguments.results / "exchanges.csv", rows)
    unseen = [row for row in rows if row["set"] == "unseen"]
    print(f"transport, fitted on a star of 4: {1e3 * start:.2f} ms and {share:.1%} of a link")
    print(summary("as simulated", [float(r["simulated_error"]) for r in unseen]))
    print(summary("with the transport", [float(r["error"]) for r in unseen]))
    print(
        summary(
            "bytes of links",
            [max(abs(float(r["link_bytes_low"])), float(r["link_bytes_high"])) for r in unseen],
        )
    )
