"""MoE layers on 8 ranks, 4 hosts of 2 in two leaves: `headway verify --lab` over k and the trunks' oversubscription. What the
ranks' processor and the transport make of it is fitted by `headway calibrate --lab`, on a star, at k = 4."""

from lab import SCALE, call, first_in_line, read_csv, summary, write_csv

PLANS = ("ep_naive", "ep_rank", "ep_node", "hp")
# (k, oversubscription), none of them a star
CASES = [(k, 2) for k in range(1, 9)] + [(k, over) for over in (1, 4) for k in (2, 4, 8)]

SCENARIO = """
model:
  name: lab
  vocab_size: 1024
  hidden: 256
  num_layers: 2
  attention: {{num_heads: 8, num_kv_heads: 8, head_width: 32}}
  moe: {{num_experts: 32, top_k: {k}, expert_width: 16, activation: swiglu}}
  dtype: fp32
cluster:
  name: two_leaves
  device: {{name: CPU, peak_matmul: 100 TFLOP/s, memory_bandwidth: 10 TB/s, memory: 16 GiB}}
  reserve: {{context: 0 B, communicator: 0 B, fragmentation: 0 %}}
  nodes: 4
  gpus_per_node: 2
  pcie: {{bandwidth: 40 Gbps, latency: 50 us}}
  fabric:
    {{nics_per_node: 2, nic: 4 Gbps, nic_latency: 50 us, spine_latency: 50 us, nodes_per_leaf: 2, oversubscription: {over}}}
batch: {{sequence_length: 1024}}
plans:
  - {{name: ep_naive, expert_parallel: {{}}, group_size: 8}}
  - {{name: ep_rank, expert_parallel: {{dedup: rank}}, group_size: 8}}
  - {{name: ep_node, expert_parallel: {{dedup: node}}, group_size: 8}}
  - {{name: hp, head_parallel: {{num_heads: 8}}, group_size: 8}}
baseline: ep_naive
"""


def scenario(arguments, k, over):
    file = arguments.results / f"k{k}_over{over}.yaml"
    file.write_text(SCENARIO.format(k=k, over=over))
    return file


def headway(arguments, *words):
    """Exit code 1 is an answer of verify: something beyond its tolerance."""
    done = call([arguments.bin / "headway", *words], check=False, preexec_fn=first_in_line)
    if done.returncode > 1:
        raise SystemExit(f"verify_lab: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done


def calibrate(arguments):
    profile = arguments.results / "profile.yaml"
    if not profile.exists():
        words = ["calibrate", scenario(arguments, 4, 2), "--lab", "--scale", SCALE, "-o", profile]
        print(headway(arguments, *words).stderr, flush=True)
    return profile


def judge(arguments, k, over, profile):
    """The rows of a case; one that is there is not measured again."""
    out = arguments.results / f"k{k}_over{over}.csv"
    if not out.exists():
        words = ["verify", scenario(arguments, k, over), "--lab", "--scale", SCALE]
        words += ["--profile", profile, "--repeats", arguments.repeats, "--csv", out]
        headway(arguments, *words)
    times = {(row["plan"], row["what"]): row for row in read_csv(out)}
    return [row_of(k, over, plan, times) for plan in PLANS]


def row_of(k, over, plan, times):
    layer, exchanges = times[plan, "layer"], times[plan, "layer_exchanges"]
    naive = times["ep_naive", "layer"]
    at = lambda row, what: float(row[f"{what}_s"])  # noqa: E731
    row = {"k": k, "oversubscription": over, "plan": plan}
    three = ("predicted", "simulated", "measured")
    row |= {f"{what}_s": f"{at(layer, what):.5f}" for what in three}
    row |= {"p10_s": f"{at(layer, 'low'):.5f}", "p90_s": f"{at(layer, 'high'):.5f}"}
    row |= {f"exchanges_{what}_s": f"{at(exchanges, what):.5f}" for what in three}
    for what in three[:2]:
        row[f"{what}_error"] = f"{at(layer, what) / at(layer, 'measured') - 1:.4f}"
        apart = at(exchanges, what) / at(exchanges, "measured") - 1
        row[f"exchanges_{what}_error"] = f"{apart:.4f}"
    return row | {f"{what}_speedup": f"{at(naive, what) / at(layer, what):.4f}" for what in three}


def report(rows):
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
        for plan in PLANS:
            own = [r for r in rows if r["plan"] == plan]
            print(summary(f"  {plan}, {what} layers", [float(r[f"{what}_error"]) for r in own]))
            apart = [float(r[f"exchanges_{what}_error"]) for r in own]
            print(summary(f"  {plan}, {what} exchanges", apart))
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


def run(arguments):
    profile = calibrate(arguments)
    rows = []
    for k, over in CASES:
        rows += judge(arguments, k, over, profile)
        for row in rows[-len(PLANS) :]:
            times = (row[f"{what}_s"] for what in ("predicted", "simulated", "measured"))
            print(k, over, row["plan"], *times, flush=True)
        write_csv(arguments.results / "layers.csv", rows)
    report(rows)
