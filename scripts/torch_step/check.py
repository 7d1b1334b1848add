"""Expert parallelism and grouped experts against a plain loop over all experts, forward and gradients."""

import functools

import torch
import torch.distributed as dist
from model import Moe, build
from shapes import Shape


def reference(whole: Moe, x: torch.Tensor) -> torch.Tensor:
    """The MoE layer as a loop over all experts on all tokens."""
    scores = whole.router(x).softmax(dim=-1, dtype=torch.float32)
    gates, chosen = scores.topk(whole.shape.top_k, dim=-1)
    gates = gates / gates.sum(dim=-1, keepdim=True)
    y = torch.zeros_like(x, dtype=torch.float32)
    for e in range(whole.shape.experts):
        gate, value = (x @ whole.up[e]).chunk(2, dim=-1)
        out = (torch.nn.functional.silu(gate) * value) @ whole.down[e]
        y = y + out.float() * torch.where(chosen == e, gates, 0.0).sum(1, keepdim=True)
    return y.type_as(x)


def check(rank: int, ranks: int, device: torch.device) -> None:
    dtype, limit = (torch.bfloat16, 2e-2) if device.type == "cuda" else (torch.float32, 1e-5)
    for implementation in ("grouped", "loop"):
        shape = Shape("check", ranks, 1, 1, 192, 64, 1, 1, 64, 8, 3, 96, 128, implementation)
        own = build(shape, rank, ranks, device, dtype).layers[0].moe
        whole = build(shape, rank, 1, device, dtype).layers[0].moe
        part = slice(rank * own.local, (rank + 1) * own.local)
        with torch.no_grad():
            whole.router.weight.copy_(own.router.weight)
            for mine, full in ((own.up, whole.up), (own.down, whole.down)):
                dist.broadcast(full, 0)
                mine.copy_(full[part])
        x = torch.randn(shape.tokens, shape.hidden, device=device, dtype=dtype) + 0.1 * rank
        weight = torch.randn_like(x)
        grads = []
        for forward in (own, functools.partial(reference, whole)):
            leaf = x.clone().requires_grad_()
            y = forward(leaf)
            (y * weight).sum().backward()
            grads.append((y, leaf.grad))
        for full in (whole.up, whole.down):
            dist.all_reduce(full.grad)
        pairs = {
            "output": (grads[0][0], grads[1][0]),
            "input gradient": (grads[0][1], grads[1][1]),
            "router gradient": (own.router.weight.grad, whole.router.weight.grad),
            "up gradient": (own.up.grad, whole.up.grad[part]),
            "down gradient": (own.down.grad, whole.down.grad[part]),
        }
        for name, (got, want) in pairs.items():
            got, want = got.detach().double(), want.detach().double()
            error = float((got - want).norm() / want.norm())
            if rank == 0:
                print(f"check {implementation}: {name} error {error:.2e}", flush=True)
            if not error < limit:
                raise SystemExit(f"{implementation}: {name} is off by {error:.2e}, limit {limit}")
