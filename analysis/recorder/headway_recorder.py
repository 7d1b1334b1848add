"""Records one rank of a PyTorch training script for `headway import --torch-trace`.

    import headway_recorder as headway

    headway.headway_fake(world_size=64, experts=128)  # only to play rank 0 of 64 on one GPU
    recorder = headway.Recorder("rank0")              # once torch.distributed is set up
    while recorder.step():                            # before every step; False once all is written
        train_step()

Written are rank0.json.gz, the profiler's trace, and rank0_comm.json, a side table with what a trace lacks: every
collective with its kind, group, bytes and whole splits, and the step's times without the profiler, which doubles the
host's. Needs PyTorch 2.4 or newer, unpatched. Nothing is wrapped before a Recorder or headway_fake() is made.
"""

import functools
import inspect
import json
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

FORMAT = 1
# Function -> kind of collective; what the rows of the side table call it.
KINDS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_to_all": "all_to_all",
    "all_to_all_single": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "barrier": "barrier",
    "send": "send",
    "isend": "send",
    "recv": "recv",
    "irecv": "recv",
    "batch_isend_irecv": "batch_isend_irecv",
}


class _State:
    """What the wrappers share."""

    rows: list | None = None  # of the side table, while the profiler runs
    depth = 0  # object collectives call others
    fake: "_Fake | None" = None
    wrapped = False


def _number_of_bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _tensors(value) -> list:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v)]
    return []


def _row_bytes(tensor: torch.Tensor) -> int:
    return tensor.element_size() * tensor.shape[1:].numel()


def _splits(tensor: torch.Tensor, sizes, ranks: int) -> list[int]:
    """Bytes for, or from, each rank of the group."""
    row = _row_bytes(tensor)
    return [n * row for n in sizes] if sizes else [tensor.shape[0] // ranks * row] * ranks


def _arguments(name: str, signature: inspect.Signature, args, kwargs) -> dict:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _ends(name: str, a: dict) -> tuple[list, list]:
    """(what goes in, what comes out) of a call; the same tensors where it works in place."""
    if name in ("all_reduce", "broadcast", "reduce", "send", "isend", "recv", "irecv"):
        tensors = _tensors(a["tensor"])
        return tensors, tensors
    if name == "all_gather":
        return _tensors(a["tensor"]), _tensors(a["tensor_list"])
    if name == "all_gather_into_tensor":
        return _tensors(a["input_tensor"]), _tensors(a["output_tensor"])
    if name == "reduce_scatter":
        return _tensors(a["input_list"]), _tensors(a["output"])
    if name in ("reduce_scatter_tensor", "all_to_all_single"):
        return _tensors(a["input"]), _tensors(a["output"])
    if name == "all_to_all":
        return _tensors(a["input_tensor_list"]), _tensors(a["output_tensor_list"])
    return [], []  # barrier and what import refuses


def _row(name: str, a: dict) -> dict:
    group = a.get("group")
    if group is None:
        group = dist.group.WORLD
    ranks = dist.get_process_group_ranks(group)
    given, taken = _ends(name, a)
    row = {
        "kind": KINDS[name],
        "group": group.group_name,
        "ranks": ranks,
        "dtype": str(given[0].dtype).removeprefix("torch.") if given else "",
        "in_bytes": _number_of_bytes(given),
        "out_bytes": _number_of_bytes(taken),
        "async": bool(a.get("async_op", name in ("isend", "irecv"))),
    }
    if name == "all_to_all_single":
        row["send"] = _splits(given[0], a["input_split_sizes"], len(ranks))
        row["receive"] = _splits(taken[0], a["output_split_sizes"], len(ranks))
        row["elements"] = given[0].numel()
        row["row_bytes"] = _row_bytes(given[0])
    elif name == "all_to_all":
        row["send"] = [_number_of_bytes([t]) for t in given]
        row["receive"] = [_number_of_bytes([t]) for t in taken]
        row["elements"] = sum(t.numel() for t in given)
        row["row_bytes"] = _row_bytes(given[0])
    elif given:
        row["elements"] = given[0].numel()
    peer = a.get("dst", a.get("src"))
    if peer is not None:
        row["peer"] = peer
    return row


class _Work(c10d.Work):
    """A handle whose wait() is seen in the trace; all else is the handle's own."""

    def __init__(self, work, index: int):
        super().__init__()
        object.__setattr__(self, "_headway", (work, index))

    def wait(self, *args, **kwargs):
        work, index = object.__getattribute__(self, "_headway")
        with torch.profiler.record_function(f"headway.wait {index}"):
            if _State.fake is not None:
                _State.fake.mark()
            return work.wait(*args, **kwargs)

    def __getattribute__(self, name: str):
        if name == "wait" or name.startswith("__"):
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "_headway")[0], name)


def _wrapper(name: str, original):
    signature = inspect.signature(original)

    def call(args, kwargs):
        result = original(*args, **kwargs)
        if _State.fake is not None:
            _State.fake.fill(name, _arguments(name, signature, args, kwargs))
        return result

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        if _State.depth or (_State.rows is None and _State.fake is None):
            return original(*args, **kwargs)
        _State.depth += 1
        try:
            if _State.rows is None:
                return call(args, kwargs)
            index = len(_State.rows)
            _State.rows.append(_row(name, _arguments(name, signature, args, kwargs)))
            # No quote in a name: the profiler writes it as it stands.
            with torch.profiler.record_function(f"headway.comm {index}"):
                result = call(args, kwargs)
            return result if result is None or isinstance(result, list) else _Work(result, index)
        finally:
            _State.depth -= 1

    return wrapped


def _wrap() -> None:
    if _State.wrapped:
        return
    for name in KINDS:
        original = getattr(c10d, name)
        wrapped = _wrapper(name, original)
        for module in (dist, c10d):
            setattr(module, name, wrapped)
    _State.wrapped = True


class _Fake:
    """Contents for exchanges that do not happen: noise, and counts of a drawn routing."""

    def __init__(self, rank: int, world_size: int, seed: int):
        self.rank, self.world_size = rank, world_size
        self.experts, self.popularity = 0, []
        self.on_device: dict = {}
        self.generators: dict = {}
        self.marks: dict = {}
        self.seed = seed

    def generator(self, device) -> torch.Generator:
        """Its own, so that the script draws the numbers that it would draw without."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed + self.rank)
        return self.generators[device]

    def mark(self) -> None:
        """A kernel on the current stream: where a collective would have been enqueued."""
        if torch.cuda.is_available():
            device = torch.cuda.current_device()
            if device not in self.marks:
                self.marks[device] = torch.zeros(1, device=device)
            self.marks[device].add_(1.0)

    def counts(self, sources: int, first: int, last: int, total: torch.Tensor) -> torch.Tensor:
        """Rows for experts [first, last) from so many sources, each with `total` choices: [sources, last - first]."""
        device = total.device
        if device not in self.on_device:
            self.on_device[device] = torch.tensor(self.popularity, device=device)
        mean = self.on_device[device][first:last] * total.float()
        noise = torch.randn(
            (sources, last - first), device=device, generator=self.generator(device)
        )
        return (mean + noise * mean.sqrt()).round().clamp_(min=0)

    def fill(self, name: str, a: dict) -> None:
        given, taken = _ends(name, a)
        with torch.no_grad():
            self.mark()
            group = a.get("group")
            group = dist.group.WORLD if group is None else group
            size, me = dist.get_world_size(group), dist.get_rank(group)
            is_count = bool(given) and not given[0].is_floating_point() and self.experts > 0
            if name in ("all_to_all_single", "all_to_all"):
                if is_count and sum(t.numel() for t in given) == self.experts:
                    self.fill_counts_of_mine(given, taken, size, me)
                else:
                    self.fill_received(given, taken)
            elif name in ("all_gather_into_tensor", "all_gather"):
                if is_count and given[0].numel() == self.experts:
                    self.fill_counts_of_all(given[0], taken, size, me)
                elif name == "all_gather":
                    for tensor in taken:
                        tensor.copy_(given[0])
                else:
                    taken[0].view(size, -1).copy_(given[0].reshape(1, -1).expand(size, -1))
            elif name == "reduce_scatter_tensor":
                taken[0].copy_(given[0].view(size, -1)[me].view_as(taken[0]))
            elif name == "reduce_scatter":
                taken[0].copy_(given[me])
            elif name in ("recv", "irecv"):
                self.noise(taken[0])

    def noise(self, tensor: torch.Tensor) -> None:
        if tensor.numel() and tensor.is_floating_point():
            tensor.normal_(generator=self.generator(tensor.device))

    def fill_received(self, given, taken) -> None:
        source = torch.cat([t.reshape(-1) for t in given]) if len(given) > 1 else given[0]
        for tensor in taken:
            if tensor.is_floating_point():
                self.noise(tensor)
            elif tensor.numel() and source.numel():  # as if all ranks sent what this one does
                place = torch.arange(tensor.numel(), device=tensor.device) % source.numel()
                tensor.copy_(source.reshape(-1)[place].view_as(tensor))

    def fill_counts_of_mine(self, given, taken, size: int, me: int) -> None:
        local = self.experts // size
        own = torch.cat([t.reshape(-1) for t in given])
        drawn = self.counts(size, me * local, (me + 1) * local, own.sum())
        drawn[me] = own.view(size, local)[me]
        parts = drawn if len(taken) > 1 else [drawn]
        for tensor, part in zip(taken, parts):
            tensor.copy_(part.reshape(tensor.shape))

    def fill_counts_of_all(self, own: torch.Tensor, taken, size: int, me: int) -> None:
        drawn = self.counts(size, 0, self.experts, own.sum())
        drawn[me] = own.reshape(-1)
        parts = drawn if len(taken) > 1 else [drawn]
        for tensor, part in zip(taken, parts):
            tensor.copy_(part.reshape(tensor.shape))


def headway_fake(
    world_size: int,
    rank: int = 0,
    experts: int = 0,
    popularity: list[float] | None = None,
    seed: int = 1,
) -> None:
    """Plays `rank` of `world_size` ranks in this process alone; call it before torch.distributed is set up.

    init_process_group() and new_group() then make groups that send nothing. Received rows are random numbers; where a
    script exchanges integers of as many entries as there are `experts`, the other ranks' counts are drawn: as many
    choices as this rank has, by `popularity` (default: every expert alike). The script keeps its own backend's name.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RuntimeError("headway_fake: torch.distributed is set up already; call it before")
    if not 0 <= rank < world_size:
        raise ValueError(f"headway_fake: rank {rank} of {world_size}")
    _State.fake = _Fake(rank, world_size, seed)
    headway_routing(experts, popularity)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0")
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(world_size))
    init, new_group = c10d.init_process_group, c10d.new_group

    @functools.wraps(init)
    def fake_init(*args, **kwargs):
        init("fake", store=FakeStore(), rank=rank, world_size=world_size)

    @functools.wraps(new_group)
    def fake_group(ranks=None, *args, **kwargs):
        names = {
            k: v for k, v in kwargs.items() if k in ("group_desc", "use_local_synchronization")
        }
        return new_group(ranks, **names)

    for module in (dist, c10d):
        module.init_process_group, module.new_group = fake_init, fake_group
    _wrap()


def headway_routing(experts: int, popularity: list[float] | None = None) -> None:
    """Sets how many experts are drawn from now on; 0: no integers are counts."""
    if _State.fake is None:
        raise RuntimeError("headway_routing: without headway_fake() nothing is drawn")
    shares = popularity if popularity is not None else [1.0] * experts
    if len(shares) != experts or (experts and (min(shares) < 0 or sum(shares) <= 0)):
        raise ValueError(f"headway_fake: popularity needs {experts} shares, not all of them 0")
    _State.fake.experts = experts
    _State.fake.popularity = [s / sum(shares) for s in shares]
    _State.fake.on_device.clear()


def _host_of_calls() -> dict[str, float]:
    """Host microseconds of a collective's call with NCCL, by kind: torch.distributed's own part, on the fake group, and
    NCCL's, on a group of this rank alone."""
    world = dist.get_world_size()
    nccl = dist.ProcessGroupNCCL(dist.HashStore(), 0, 1)
    x, y = torch.zeros(1024, device="cuda"), torch.zeros(1024, device="cuda")
    part, whole = torch.zeros(64, device="cuda"), torch.zeros(64 * world, device="cuda")
    calls = {
        "all_to_all": (
            lambda: dist.all_to_all_single(whole, whole),
            lambda: nccl.alltoall_base(y, x, [1024], [1024]),
        ),
        "all_reduce": (lambda: dist.all_reduce(x), lambda: nccl.allreduce([x])),
        "all_gather": (
            lambda: dist.all_gather_into_tensor(whole, part),
            lambda: nccl._allgather_base(y, x),
        ),
        "reduce_scatter": (
            lambda: dist.reduce_scatter_tensor(part, whole),
            lambda: nccl._reduce_scatter_base(y, x),
        ),
    }

    def microseconds(call) -> float:
        for _ in range(10):
            call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(100):
            call()
        taken = 1e4 * (time.perf_counter() - begin)
        torch.cuda.synchronize()
        return taken

    _State.depth += 1  # no fills, no rows
    try:
        return {
            kind: microseconds(around) + microseconds(lambda inside=inside: inside().wait())
            for kind, (around, inside) in calls.items()
        }
    finally:
        _State.depth -= 1


class Recorder:
    """Times steps, profiles some, and writes the trace and the side table.

    warm steps first; free: times of steps as they run; host: the host's time in steps that begin with an idle device;
    then, under the profiler, as many warm ones (clocks sink while it starts) and those that are written.
    """

    def __init__(self, path: str, warm: int = 8, free: int = 20, host: int = 8, profiled: int = 3):
        for name, number in (
            ("warm", warm),
            ("free", free),
            ("host", host),
            ("profiled", profiled),
        ):
            if number < 1:
                raise ValueError(f"Recorder: {name} is {number}; at least 1")
        self.path, self.warm, self.profiled = str(path), warm, profiled
        self.free_from, self.host_from, self.timed_at = warm, warm + free, warm + free + host
        self.steps = -1  # that have ended
        self.begin = None  # of a step that begins idle
        self.host_times: list[float] = []
        self.marks: list = []
        self.profiler = None
        self.profiled_from = 0
        self.done = False
        self.calls = {}
        _wrap()
        if not dist.is_initialized():
            print("headway: torch.distributed is not set up: a run of one rank is recorded")

    @property
    def timed(self) -> bool:
        """Whether all times are taken: what follows is profiled, after which launches of this process are slower."""
        return self.steps >= self.timed_at

    def step(self) -> bool:
        """To be called before every step; False once all is written."""
        if self.done:
            return False
        now = time.perf_counter()
        if self.begin is not None:
            self.host_times.append(1e3 * (now - self.begin))
            self.begin = None
        self.steps += 1
        if self.steps <= self.timed_at:
            self._time()
        elif self.profiler is None:
            torch.cuda.synchronize()
            self._start_profiler()
        else:
            torch.cuda.synchronize()
            self._profile()
        return not self.done

    def _time(self) -> None:
        if self.free_from <= self.steps <= self.host_from:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        if self.host_from <= self.steps < self.timed_at:
            torch.cuda.synchronize()
            self.begin = time.perf_counter()

    def _start_profiler(self) -> None:
        if _State.fake is not None and dist.is_nccl_available():
            self.calls = _host_of_calls()
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self.profiler = torch.profiler.profile(
            activities=kinds,
            schedule=torch.profiler.schedule(
                wait=0, warmup=self.warm, active=self.profiled, repeat=1
            ),
            on_trace_ready=lambda p: p.export_chrome_trace(self.path + ".json.gz"),
            record_shapes=True,
        )
        self.profiler.__enter__()
        self.profiled_from = self.steps + self.warm

    def _profile(self) -> None:
        ended = self.steps - self.profiled_from  # of the steps that are written
        if ended == 0:
            _State.rows = []
        if ended < self.profiled:
            self.profiler.step()
            return
        rows, _State.rows = _State.rows, None
        self.profiler.step()
        self.profiler.__exit__(None, None, None)
        self._write(rows)
        self.done = True

    def _write(self, rows: list) -> None:
        free = [a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:])]
        groups = {row["group"]: row.pop("ranks") for row in rows}
        table = {
            "format": FORMAT,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(),
            "rank": dist.get_rank() if dist.is_initialized() else 0,
            "world_size": dist.get_world_size() if dist.is_initialized() else 1,
            "fake": _State.fake is not None,
            "experts": _State.fake.experts if _State.fake is not None else 0,
            "step_ms": statistics.median(free),
            "enqueue_ms": statistics.median(self.host_times),
            "peak_bytes": torch.cuda.max_memory_allocated(),
            "free_ms": free,
            "host_ms": self.host_times,
            "nccl_host_us": self.calls,
            "groups": groups,
            "calls": rows,
        }
        whole, part = self.path + "_comm.json", self.path + "_comm.json.part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(table, file)
        os.replace(part, whole)
