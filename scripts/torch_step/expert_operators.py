#!/usr/bin/env python3
"""Times the operators that Megatron-LM runs beside its experts' products, written anew in plain PyTorch, against the
bytes that the model counts for them (models/workload/framework_operators.cpp, layers/expert_parallel.cpp).

usage: scripts/torch_step/expert_operators.py OUT.csv    (one GPU; half a minute)

A row: what, rows, elements of a row, microseconds forward and backward (medians of 30 runs in a row, events in the
stream), bytes an element as the model has them, and the bytes an element that the time is worth at the rate of a copy.
"""

import csv
import statistics
import subprocess
import sys

import torch

RUNS, EXPERTS = 30, 16
SHAPES = ((65536, 2880, 2880), (65536, 1536, 4096), (32768, 2048, 7168))  # rows, hidden, width


def microseconds(run):
    """Medians of what `run` returns: lists of pairs of events."""
    for _ in range(5):
        run()
    pairs = [run() for _ in range(RUNS)]
    torch.cuda.synchronize()
    return [statistics.median(1e3 * a.elapsed_time(b) for a, b in pair) for pair in zip(*pairs)]


def events(work):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    result = work()
    end.record()
    return result, (begin, end)


def both(forward, *inputs):
    """Forward and backward of `forward`, apart."""
    gradient = torch.randn_like(forward(*inputs))

    def run():
        for x in inputs:
            x.grad = None
        y, first = events(lambda: forward(*inputs))
        _, second = events(lambda: y.backward(gradient))
        return first, second

    return microseconds(run)


def clamp_and_join(x):
    gate, linear = x.chunk(2, -1)
    return torch.cat((gate.clamp(max=7.0), linear.clamp(-7.0, 7.0)), -1)


def add_biases(y, biases, gates):
    counts = [y.shape[0] // EXPERTS] * EXPERTS
    parts = zip(y.split(counts), biases, gates.split(counts))
    return torch.cat([rows + bias * gate for rows, bias, gate in parts]).to(y.dtype)


@torch.compile
def swiglu(x, gates):
    gate, linear = x.chunk(2, -1)
    return (torch.nn.functional.silu(gate) * linear * gates).to(x.dtype)


@torch.compile
def swiglu_backward(gradient, x, gates):
    gate, linear = x.chunk(2, -1)
    sigmoid = torch.sigmoid(gate)
    weighed = gradient * gates
    dx = torch.cat(
        (weighed * linear * sigmoid * (1 + gate * (1 - sigmoid)), weighed * gate * sigmoid), -1
    )
    dgates = (gate * sigmoid * linear * gradient.to(gates.dtype)).sum(-1, keepdim=True)
    return dx.to(x.dtype), dgates


class WeighedSwiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gates):
        ctx.save_for_backward(x, gates)
        return swiglu(x, gates)

    @staticmethod
    def backward(ctx, gradient):
        return swiglu_backward(gradient, *ctx.saved_tensors)


def leaf(*shape, dtype=torch.bfloat16):
    return torch.randn(shape, device="cuda", dtype=dtype).requires_grad_()


def cases(rows, hidden, width):
    """What, elements of a row, microseconds of both passes, bytes an element of both."""
    gates = leaf(rows, 1, dtype=torch.float32)
    yield "clamp and join", hidden, both(clamp_and_join, leaf(rows, 2 * hidden)), (16, 30)
    bias = [leaf(width) for _ in range(EXPERTS)]
    yield (
        "biases",
        width,
        both(lambda y, g, *b: add_biases(y, b, g), leaf(rows, width), gates, *bias),
        (28, 40),
    )
    # Compiled for one number of rows, then for any, as routing gives a rank another one each time.
    torch._dynamo.reset()
    for what, others in (
        ("weighed SwiGLU, as many rows", ()),
        ("weighed SwiGLU, any rows", (128, 256)),
    ):
        for fewer in others:
            x, g = leaf(rows - fewer, 2 * hidden), leaf(rows - fewer, 1, dtype=torch.float32)
            WeighedSwiglu.apply(x, g).sum().backward()
        yield what, hidden, both(WeighedSwiglu.apply, leaf(rows, 2 * hidden), gates), (6, 12)


def copy_rate():
    """Bytes read and written a microsecond."""
    x = torch.randn(1 << 28, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    (time,) = microseconds(lambda: (events(lambda: y.copy_(x))[1],))
    return 2 * x.nbytes / time


def main():
    rate = copy_rate()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    ).stdout.split()[0]
    machine = f"{torch.cuda.get_device_name()}, driver {driver}, torch {torch.__version__}"
    with open(sys.argv[1], "w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(
            [
                "what",
                "rows",
                "elements",
                "forward_us",
                "backward_us",
                "forward_bytes",
                "backward_bytes",
                "forward_worth",
                "backward_worth",
                "copy_gb_s",
                "machine",
            ]
        )
        for shape in SHAPES:
            for what, elements, times, counted in cases(*shape):
                worth = [rate * t / (shape[0] * elements) for t in times]
                row = [what, shape[0], elements, *(f"{t:.1f}" for t in times), *counted]
                row += [*(f"{w:.1f}" for w in worth), f"{rate / 1e3:.0f}", machine]
                table.writerow(row)
                print(*row[:-1])


if __name__ == "__main__":
    main()
