"""The stand-in for somebody's own script: plain PyTorch, three layouts, nothing of headway in it."""

import cases
import torch
import torch.distributed as dist
import torch.nn.functional as F
from model import build
from torch import nn


def force_router(model: nn.Module, shares: list[float]) -> None:
    """Top-k of log-shares with Gumbel noise: choices by these popularities, whatever the weights are."""

    def drawn(module, inputs, logits):
        noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
        return 0.0 * logits + (module.logs + noise).type_as(logits)

    for layer in model.layers:
        layer.moe.router.logs = torch.tensor(shares, device=layer.moe.up.device).log()
        layer.moe.router.register_forward_hook(drawn)


class Copy(torch.autograd.Function):
    """Into a tensor-parallel block: the gradient is the sum of the ranks'."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad


class Sum(torch.autograd.Function):
    """Out of it: the sum of the ranks' parts."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return grad


class ParallelBlock(nn.Module):
    """Attention and a gated feed-forward, heads and width shared out among the ranks."""

    def __init__(self, hidden: int, heads: int, ranks: int):
        super().__init__()
        self.heads = heads // ranks
        own = self.heads * 128
        self.attention_norm, self.mlp_norm = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * own, bias=False)
        self.out = nn.Linear(own, hidden, bias=False)
        self.up = nn.Linear(hidden, 2 * 4 * hidden // ranks, bias=False)
        self.down = nn.Linear(4 * hidden // ranks, hidden, bias=False)

    def forward(self, x):
        q, k, v = (
            t.view(-1, 4096, self.heads, 128).transpose(1, 2)
            for t in self.qkv(Copy.apply(self.attention_norm(x))).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + Sum.apply(self.out(y.reshape(x.shape[0], -1)))
        gate, value = self.up(Copy.apply(self.mlp_norm(x))).chunk(2, -1)
        return x + Sum.apply(self.down(F.silu(gate) * value))


class ParallelTransformer(nn.Module):
    def __init__(self, shape, ranks: int):
        super().__init__()
        self.embed = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(
            ParallelBlock(shape.hidden, shape.heads, ranks) for _ in range(shape.layers)
        )
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x).float(), targets)


def annotate(layer: nn.Module) -> None:
    """By this name headway knows a MoE layer's kernels from the others."""
    forward = layer.forward

    def named(x):
        with torch.profiler.record_function("moe"):
            return forward(x)

    layer.forward = named


class Trainer:
    def __init__(self, case: cases.Case, rank: int, ranks: int, device: torch.device):
        self.case, self.ranks = case, ranks
        shape = case.shape
        if case.layout == "tp":
            torch.manual_seed(1234)
            self.model = ParallelTransformer(shape, ranks).to(device, torch.bfloat16)
        else:
            expert_ranks = ranks if case.layout == "ep" else 1
            self.model = build(shape, rank, expert_ranks, device, torch.bfloat16)
            force_router(self.model, cases.popularity(case))
            for layer in self.model.layers:
                annotate(layer.moe)
        self.dense, self.works = [], []
        if case.layout == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for layer in self.model.layers:
                fully_shard(layer)
            fully_shard(self.model)
        elif case.layout == "ep" and ranks > 1:
            experts = self.model.expert_parameters()
            self.dense = [p for p in self.model.parameters() if p not in experts]
            if case.overlap:
                self.reduce_early(experts)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        generator = torch.Generator(device).manual_seed(7 + (rank if case.layout != "tp" else 0))
        self.tokens = torch.randint(
            shape.vocab, (shape.tokens + 1,), generator=generator, device=device
        )

    def reduce_early(self, experts) -> None:
        """All-reduces a layer's dense gradients as soon as the last of them is whole."""
        for layer in self.model.layers:
            own = [p for p in layer.parameters() if p not in experts]
            self.dense = [p for p in self.dense if all(p is not q for q in own)]
            missing = [len(own)]

            def whole(_, own=own, missing=missing):
                missing[0] -= 1
                if missing[0] == 0:
                    missing[0] = len(own)
                    flat = torch.cat([p.grad.view(-1) for p in own])
                    self.works.append((dist.all_reduce(flat, async_op=True), flat, own))

            for p in own:
                p.register_post_accumulate_grad_hook(whole)

    @torch.no_grad()
    def finish(self, flat: torch.Tensor, parameters: list) -> None:
        flat /= self.ranks
        grads = [p.grad for p in parameters]
        parts = flat.split([g.numel() for g in grads])
        torch._foreach_copy_(grads, [part.view_as(g) for part, g in zip(parts, grads)])

    def step(self) -> None:
        self.model(self.tokens[:-1], self.tokens[1:]).backward()
        if self.dense:
            with torch.no_grad():
                flat = torch.cat([p.grad.view(-1) for p in self.dense])
            dist.all_reduce(flat)
            self.finish(flat, self.dense)
        for work, flat, own in self.works:
            work.wait()
            self.finish(flat, own)
        self.works.clear()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
