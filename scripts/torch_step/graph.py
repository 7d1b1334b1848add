"""Layers replayed as one CUDA graph beside their eager run."""

import dataclasses
import functools
import statistics
import time

import torch
from model import build
from shapes import Shape


def measured(shape: Shape, device: torch.device) -> list[dict]:
    """Forward and backward of all layers, and of their dense parts alone, eager and as one CUDA graph."""
    net = build(shape, 0, 1, device, torch.bfloat16)
    x = torch.randn(shape.tokens, shape.hidden, device=device, dtype=torch.bfloat16)
    grad = torch.randn_like(x)

    def dense(layer, h):
        return h + layer.attention(layer.attention_norm(h), net.cos, net.sin)

    def whole(layer, h):
        return layer(h, net.cos, net.sin)

    def run(part) -> None:
        net.zero_grad(set_to_none=True)
        h = x
        for layer in net.layers:
            h = part(layer, h)
        h.backward(grad)

    def per_run(work) -> tuple[float, float]:
        times, host = [], []
        for _ in range(30):
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            a.record()
            start = time.perf_counter()
            work()
            host.append(1e3 * (time.perf_counter() - start))
            b.record()
            b.synchronize()
            times.append(a.elapsed_time(b))
        return statistics.median(times), statistics.median(host)

    rows = []
    for name, part in (("dense", dense), ("layer", whole)):
        eager = functools.partial(run, part)
        for _ in range(5):
            eager()
        eager_ms, eager_host_ms = per_run(eager)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                eager()
        torch.cuda.current_stream().wait_stream(side)
        net.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            eager()
        replay_ms, replay_host_ms = per_run(graph.replay)
        rows.append(
            dataclasses.asdict(shape)
            | {
                "part": name,
                "eager_ms": round(eager_ms, 4),
                "eager_host_ms": round(eager_host_ms, 4),
            }
            | {"graph_ms": round(replay_ms, 4), "graph_host_ms": round(replay_host_ms, 4)}
        )
        del graph
    return rows
