"""Host time of single operators, enqueued in chains of CALLS on an idle device: a chain is shorter than the launch queue."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from model import Exchange
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

CALLS, REPEATS = 40, 15
ROWS, WIDTH, EXPERTS = 256, 512, 8


@dataclass(frozen=True)
class Operator:
    name: str
    first: torch.Tensor
    call: Callable[..., object]  # of the input and, where `weight` says so, a weight
    trained: bool = False  # its output is the next call's input, and backward runs
    weight: tuple[int, ...] = ()  # one of its own for each call, so that no gradient is added up


def add_us(device: torch.device) -> float:
    """Host time of an in-place addition to a tiny tensor: the least that one launch costs PyTorch."""
    x = torch.zeros(64, device=device)
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(500):
            x.add_(1)
        times.append((time.perf_counter() - start) / 500 * 1e6)
    return statistics.median(times)


def operators(ranks: int, device: torch.device) -> list[Operator]:
    kind = {"device": device, "dtype": torch.bfloat16}
    x = torch.randn(ROWS, WIDTH, **kind)
    heads = torch.randn(1, WIDTH // 64, ROWS, 64, **kind)
    scores = torch.randn(ROWS, EXPERTS, device=device)
    order = torch.randperm(ROWS, device=device)
    chosen = torch.randint(EXPERTS, (ROWS,), device=device)
    ends = torch.arange(1, EXPERTS + 1, device=device, dtype=torch.int32) * (ROWS // EXPERTS)
    counts = torch.zeros(ranks, device=device, dtype=torch.int64)
    square = (WIDTH, WIDTH)

    def attention(y: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(y, heads, heads, is_causal=True)

    listed = [
        Operator("empty_like", x, torch.empty_like),
        Operator("add_", x, lambda y: y.add_(1)),
        Operator("mul", x, lambda y: y * 1.5, True),
        Operator("silu", x, F.silu, True),
        Operator("softmax", scores, lambda y: y.softmax(-1), True),
        Operator("rms_norm", x, lambda y, w: F.rms_norm(y, (WIDTH,), w), True, (WIDTH,)),
        Operator("linear", x, F.linear, True, square),
        Operator(
            "grouped_mm", x, lambda y, w: F.grouped_mm(y, w, offs=ends), True, (EXPERTS, *square)
        ),
        Operator("attention", heads, attention, True),
        Operator("index_select", x, lambda y: y.index_select(0, order), True),
        Operator("topk", scores, lambda y: y.topk(2)),
        Operator("argsort", chosen, lambda y: y.argsort(stable=True)),
        Operator("tolist", counts, lambda y: y.tolist()),
    ]
    if ranks > 1:
        even = [ROWS // ranks] * ranks
        received = torch.empty_like(counts)
        listed += [
            Operator("all_to_all_counts", counts, lambda y: dist.all_to_all_single(received, y)),
            Operator("all_to_all_rows", x, lambda y: Exchange.apply(y, even, even), True),
            Operator("all_reduce", counts, dist.all_reduce),
        ]
    return listed


class Chain:
    """CALLS calls of an operator; its weights are made before any clock starts."""

    def __init__(self, operator: Operator, device: torch.device):
        self.operator = operator
        self.first = operator.first.detach().clone().requires_grad_(operator.trained)
        kind = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
        weights = [
            torch.randn(operator.weight, **kind) for _ in range(CALLS if operator.weight else 0)
        ]
        self.arguments = [(w,) for w in weights] or [()] * CALLS
        self.last = self.first

    def forward(self) -> None:
        y = self.first
        for arguments in self.arguments:
            z = self.operator.call(y, *arguments)
            y = z if self.operator.trained else y
        self.last = y

    def backward(self, grad: torch.Tensor) -> None:
        self.last.backward(grad)


def each_us(work: Callable[..., None], *arguments: torch.Tensor) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) / CALLS * 1e6


def each_launches(work: Callable[..., None], *arguments: torch.Tensor) -> float:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work(*arguments)
        torch.cuda.synchronize()
    return sum(e.device_type == DeviceType.CUDA for e in profiler.events()) / CALLS


def measured(ranks: int, device: torch.device) -> list[dict]:
    listed = operators(ranks, device)
    rows = []
    for operator in listed:
        times: dict[str, list[float]] = {"forward_us": [], "backward_us": []}
        for _ in range(REPEATS):
            chain = Chain(operator, device)
            times["forward_us"].append(each_us(chain.forward))
            if operator.trained:
                grad = torch.ones_like(chain.last)
                times["backward_us"].append(each_us(chain.backward, grad))
        row = {key: round(statistics.median(own), 2) if own else "" for key, own in times.items()}
        rows.append({"op": operator.name, "ranks": ranks} | row)
    for row, operator in zip(rows, listed):  # after the times, which a profiler would change
        chain = Chain(operator, device)
        row["forward_launches"] = each_launches(chain.forward)
        row["backward_launches"] = ""
        if operator.trained:
            row["backward_launches"] = each_launches(chain.backward, torch.ones_like(chain.last))
    return rows
