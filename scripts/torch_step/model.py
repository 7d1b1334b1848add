"""A Mixture-of-Experts transformer in plain eager PyTorch, as Megatron and torchtitan run it.

Dropless expert parallelism over NCCL: counts are exchanged first and the host waits for them, then
rows go out, grouped experts run, rows come back. Spans bear headway's phase names
(models/vocab/phase.hpp); they cost nothing while no profiler runs.
"""

import contextlib
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from shapes import Shape
from torch import nn


class Spans:
    """Named host spans for the profiler; off unless one runs, for a span costs the host microseconds."""

    enabled = False

    @classmethod
    def span(cls, name: str) -> contextlib.AbstractContextManager:
        return torch.profiler.record_function(name) if cls.enabled else contextlib.nullcontext()


span = Spans.span


class Waits:
    """How often and how long the host waited for the device inside a layer."""

    count = 0
    seconds = 0.0

    @classmethod
    def to_list(cls, tensor: torch.Tensor) -> list:
        start = time.perf_counter()
        values = tensor.tolist()
        cls.seconds += time.perf_counter() - start
        cls.count += 1
        return values


class Exchange(torch.autograd.Function):
    """All-to-all of rows with uneven splits; backward sends the gradients the other way."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor, send: list[int], receive: list[int]) -> torch.Tensor:
        ctx.send, ctx.receive = send, receive
        out = rows.new_empty((sum(receive), rows.shape[1]))
        dist.all_to_all_single(out, rows, receive, send)
        return out

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        out = grad.new_empty((sum(ctx.send), grad.shape[1]))
        dist.all_to_all_single(out, grad.contiguous(), ctx.send, ctx.receive)
        return out, None, None


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.qkv = nn.Linear(shape.hidden, wide, bias=False)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)

    @staticmethod
    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return (x * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        s = self.shape
        with span("attention_qkv"):
            qkv = self.qkv(x).view(-1, s.sequence, s.heads + 2 * s.kv_heads, s.head_dim)
            q, k, v = qkv.split((s.heads, s.kv_heads, s.kv_heads), dim=2)
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        with span("attention_core"):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            y = y.transpose(1, 2).reshape(x.shape[0], -1)
        with span("attention_out"):
            return self.out(y)


class Moe(nn.Module):
    def __init__(self, shape: Shape, rank: int, ranks: int):
        super().__init__()
        self.shape, self.ranks = shape, ranks
        self.local = shape.experts // ranks
        self.router = nn.Linear(shape.hidden, shape.experts, bias=False)
        up = torch.empty(self.local, shape.hidden, 2 * shape.expert_hidden)
        down = torch.empty(self.local, shape.expert_hidden, shape.hidden)
        generator = torch.Generator(up.device).manual_seed(1000 + rank)
        self.up = nn.Parameter(up.normal_(0.0, 0.02, generator=generator))
        self.down = nn.Parameter(down.normal_(0.0, 0.02, generator=generator))
        self.last_counts: torch.Tensor | None = None

    def expert_mlp(self, rows: torch.Tensor, per_expert: torch.Tensor) -> torch.Tensor:
        if self.shape.implementation == "grouped":
            ends = per_expert.cumsum(0, dtype=torch.int32)
            gate, value = F.grouped_mm(rows, self.up, offs=ends).chunk(2, dim=-1)
            return F.grouped_mm(F.silu(gate) * value, self.down, offs=ends)
        outputs = []
        for part, up, down in zip(rows.split(Waits.to_list(per_expert)), self.up, self.down):
            gate, value = (part @ up).chunk(2, dim=-1)
            outputs.append((F.silu(gate) * value) @ down)
        return torch.cat(outputs)

    def exchanged(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Sends rows, sorted by expert, to the experts' ranks and returns their outputs in the same order."""
        with span("count_exchange"):
            received = torch.empty_like(counts)
            dist.all_to_all_single(received, counts)
            by_rank = received.view(self.ranks, self.local)
            sums = torch.stack((counts.view(self.ranks, self.local).sum(1), by_rank.sum(1)))
            send, receive = Waits.to_list(sums)
        with span("dispatch"):
            rows = Exchange.apply(rows, send, receive)
        regroup = self.local > 1
        if regroup:
            with span("regroup"):
                expert = torch.arange(self.local, device=rows.device).repeat(self.ranks)
                expert = expert.repeat_interleave(received, output_size=sum(receive))
                order = expert.argsort(stable=True)
                rows = rows.index_select(0, order)
        with span("expert"):
            rows = self.expert_mlp(rows, by_rank.sum(0))
        if regroup:
            with span("ungroup"):
                back = torch.empty_like(order)
                back.scatter_(0, order, torch.arange(order.numel(), device=order.device))
                rows = rows.index_select(0, back)
        with span("combine"):
            return Exchange.apply(rows, receive, send)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.shape
        with span("route"):
            scores = self.router(x).softmax(dim=-1, dtype=torch.float32)
            gates, chosen = scores.topk(s.top_k, dim=-1)
            gates = gates / gates.sum(dim=-1, keepdim=True)
            flat = chosen.view(-1)
            counts = torch.histc(flat.float(), bins=s.experts, min=0, max=s.experts).long()
            self.last_counts = counts
        with span("permute"):
            order = flat.argsort(stable=True)
            token = order // s.top_k
            rows = x.index_select(0, token)
            gate = gates.view(-1).index_select(0, order)
        if self.ranks > 1:
            rows = self.exchanged(rows, counts)
        else:
            with span("expert"):
                rows = self.expert_mlp(rows, counts)
        with span("unpermute"):
            weighted = (rows * gate.unsqueeze(-1)).type_as(x)
            return torch.zeros_like(x).index_add(0, token, weighted)


class Layer(nn.Module):
    def __init__(self, shape: Shape, rank: int, ranks: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.attention = Attention(shape)
        self.moe_norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.moe = Moe(shape, rank, ranks)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        with span("norm"):
            h = self.attention_norm(x)
        h = self.attention(h, cos, sin)
        with span("norm"):
            x = x + h
            h = self.moe_norm(x)
        h = self.moe(h)
        with span("norm"):
            return x + h


class Transformer(nn.Module):
    def __init__(self, shape: Shape, rank: int, ranks: int):
        super().__init__()
        self.embed = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, rank, ranks) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False)
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        position = torch.arange(shape.sequence, dtype=torch.float32)
        angle = torch.outer(position, 1e6**-half).repeat(1, 2).unsqueeze(1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def expert_parameters(self) -> set[nn.Parameter]:
        return {p for layer in self.layers for p in (layer.moe.up, layer.moe.down)}

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with span("embed"):
            x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        with span("norm"):
            x = self.norm(x)
        with span("lm_head"):
            logits = self.head(x)
        with span("loss"):
            return F.cross_entropy(logits.float(), targets)


def build(
    shape: Shape, rank: int, ranks: int, device: torch.device, dtype: torch.dtype
) -> Transformer:
    """The dense parameters are the same on all ranks, the experts' are of the rank."""
    if shape.experts % ranks:
        raise ValueError(f"{shape.name}: {shape.experts} experts do not divide by {ranks} ranks")
    if shape.tokens % shape.sequence:
        raise ValueError(f"{shape.name}: {shape.tokens} tokens do not divide by {shape.sequence}")
    torch.manual_seed(1234)
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Transformer(shape, rank, ranks)
    finally:
        torch.set_default_dtype(torch.float32)
