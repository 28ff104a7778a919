"""A population of replicas trained as one: the replica axis, everything in place.

The author of a strategy writes the maths of one replica. Here it is run for the stacked state of all of them: as one
program, or, where lifting is off, for each replica on views of the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cl_lib.datasets import Dataset
from cl_lib.engine import checkpoint
from cl_lib.engine.launch import LAUNCH, Launch, recorder, try_to_record
from cl_lib.engine.net import FunctionalNet, has_batch_statistics
from cl_lib.engine.optim import Optimiser
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.engine.rows import Store, is_streamed
from cl_lib.engine.step import Step, bound, write
from cl_lib.engine.trace import Program
from cl_lib.engine.window import Window
from cl_lib.memory.plan import STEPS, Block, Plan
from cl_lib.memory.store import Contents
from cl_lib.strategies.strategy import Phase, Strategy, hyper_parameters
from cl_lib.streams.stream import Classes, Realisation
from cl_lib.types import Experienced, Spec, State, Tensors

OPTIONAL = ("momentum", "weight_decay", "clip_norm")
"""Hyper-parameters of an optimiser that cost nothing where no replica uses them."""


class Population:
    """``R`` replicas of one strategy on one schedule.

    Parameters
    ----------
    strategy : Strategy
    modules : sequence of R nn.Module
        One freshly initialised network for each replica.
    optimiser : Optimiser
    plan : Plan
    data : Dataset
    realisations : sequence of R Realisation
    spec : Spec
    hyper : dict
        ``{"strategy.lam": [R values], "optim.lr": ...}``: those that differ from the fields.
    train_classes : {"all", "seen", "experience"}
    lifted, together, compiled, half : bool
        Whether the step is lifted; for all replicas at once, or for each on its own, so that no sum can depend on how
        many there are; whether it is compiled; whether networks compute in bfloat16.
    store : {"auto", "resident", "streamed"}
    """

    def __init__(
        self,
        strategy: Strategy,
        modules: Sequence[nn.Module],
        optimiser: Optimiser,
        plan: Plan,
        data: Dataset,
        realisations: Sequence[Realisation],
        spec: Spec,
        *,
        hyper: Mapping[str, Sequence[float]],
        train_classes: Classes = "all",
        dtype: torch.dtype = torch.float32,
        device: torch.device,
        lifted: bool = True,
        together: bool = True,
        compiled: bool = False,
        half: bool = False,
        store: Store = "auto",
    ) -> None:
        self.strategy, self.optimiser, self.plan, self.spec = strategy, optimiser, plan, spec
        self.module, self.dtype, self.device = modules[0], dtype, device
        self.lifted, self.train_classes = lifted, train_classes
        self.replicas = len(modules)
        self.sized = has_batch_statistics(self.module)
        # what runs as one program: all replicas; or each on its own, lifted (a slice keeps the axis) or not (an index)
        each = range(self.replicas)
        one_by_one: list[slice | int] = [slice(r, r + 1) for r in each] if lifted else list(each)
        self.together = lifted and together
        self.parts = [slice(0, self.replicas)] if self.together else one_by_one
        # outside the step calls are few and large: on a CPU one after the other is faster
        self.alone = one_by_one if device.type == "cpu" else self.parts
        self.shared = upload(data, data.train, dtype, device, store)
        self.window: Window | None = None
        self.table = tables(realisations, dtype, device)
        if train_classes != "all":
            mask = torch.stack([r.classes for r in realisations]).to(device)
            self.table["mask"] = mask if train_classes == "experience" else torch.zeros_like(mask)
        if strategy.keeps(spec):
            beside = torch.arange(self.replicas, device=device)
            self.table["row"] = (beside if self.together else torch.zeros_like(beside)) * (spec.capacity + 1)
        if is_streamed(data.train.x, store):
            self.window = Window(self.shared["x"], plan, strategy.fills_memory, device)
            if strategy.fills_memory:
                slots = (self.replicas, spec.capacity + 1)
                self.table["memory_row"] = torch.zeros(slots, dtype=torch.long, device=device)
        self.hyper = {
            "strategy": self._numbers("strategy", strategy, hyper),
            "optim": self._numbers("optim", optimiser, hyper),
        }
        self.status = {
            "diverged": torch.full((self.replicas,), -1, dtype=torch.long, device=device),
            "loss": torch.full((self.replicas,), torch.nan, dtype=dtype, device=device),
        }
        self.state = self._initial(modules)
        step = Step(strategy, self.module, optimiser, spec, dtype, lifted, half)
        probe = None if lifted or not strategy.liftable else step.probe
        self._program = Program(step, strategy.traceable, compiled, probe)
        self._block: Block | None = None
        self._from = self._until = 0
        self._losses = torch.zeros(STEPS, self.replicas, dtype=dtype, device=device)
        self._fixed: list[dict[str, Any]] = []
        self._calls: list[list[tuple[Callable[..., Any], list[Tensor], tuple[Tensor, ...]]]] = []
        self._recorded: dict[tuple[str, int], Launch | None] = {}
        self._launches: list[tuple[Launch, list[Tensor]]] = []
        self._alike = 0
        self._readout: Tensors = {}

    # ------------------------------------------------------------------ state
    def _numbers(self, part: str, owner: Any, given: Mapping[str, Sequence[float]]) -> Tensors:
        out = {}
        for field in hyper_parameters(owner):
            value = getattr(owner, field)
            values = list(given.get(f"{part}.{field}", [value] * self.replicas))
            if part == "optim" and field in OPTIONAL and not any(values):
                continue
            out[field] = torch.tensor(values, dtype=self.dtype, device=self.device)
        return out

    def _initial(self, modules: Sequence[nn.Module]) -> State:
        def stack(named: Callable[[nn.Module], list[tuple[str, Tensor]]]) -> Tensors:
            per_module = [dict(named(m)) for m in modules]
            out = {}
            for name in per_module[0]:
                tensor = torch.stack([own[name].detach() for own in per_module]).to(self.device)
                out[name] = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            return out

        params = stack(lambda m: [(k, p) for k, p in m.named_parameters() if p.requires_grad])
        buffers = stack(
            lambda m: [*m.named_buffers(), *((k, p) for k, p in m.named_parameters() if not p.requires_grad)]
        )
        memory: Tensors = {}
        if self.strategy.memory is not None:
            one = self.strategy.memory.init(self.strategy.keeps(self.spec), self.dtype, self.device)
            memory = {k: v.expand(self.replicas, *v.shape).clone() for k, v in one.items()}
        state = State(params, buffers, self.optimiser.init(params, self.hyper["optim"]), memory, {})

        def extra(state: State, hyper: Tensors) -> dict[str, Any]:
            net = FunctionalNet(self.module, state.buffers)
            made = bound(self.strategy, hyper).init(net, state.params, self.spec)
            return pytree.tree_map(torch.clone, made)

        state = self._placed(state)
        made = self._each(extra, state, self.hyper["strategy"])
        return state._replace(extra=self._placed(pytree.tree_map(torch.clone, made)))

    def _placed(self, tree: Any) -> Any:
        """Where each replica is lifted on its own: its tensors at addresses as even as a single run's.

        The last bits of a matrix product may depend on the address of what is multiplied.
        """
        exact = self.lifted and not self.together
        return pytree.tree_map(aligned, tree) if exact else tree

    def _each(self, one: Callable[..., Any], *trees: Any) -> Any:
        """``one(*tree of a replica)`` for every replica, results stacked."""
        run = torch.func.vmap(one) if self.lifted else one
        trees = self._placed(trees)
        own = [run(*pytree.tree_map(lambda t, p=p: t[p], trees)) for p in self.alone]
        join = torch.cat if self.lifted else torch.stack
        return own[0] if len(own) == 1 and self.lifted else pytree.tree_map(lambda *parts: join(parts), *own)

    @property
    def tree(self) -> dict[str, Any]:
        """All that must be saved to go on from here."""
        self._settle()
        return {"state": self.state._asdict(), "status": self.status}

    def restore(self, tree: dict[str, Any]) -> None:
        """Go on from a saved tree; the plan must be at the same step."""
        checkpoint.restore(self.tree, tree)

    @property
    def diverged(self) -> np.ndarray:
        """``(R,)`` step at which a replica was found non-finite, -1 for healthy ones."""
        self._settle()
        finite = torch.ones(self.replicas, dtype=torch.bool, device=self.device)
        for p in self.state.params.values():
            finite &= torch.isfinite(p.reshape(self.replicas, -1)).all(1)
        found = self.status["diverged"]
        found.copy_(torch.where((found < 0) & ~finite, self.plan.step, found))
        return found.cpu().numpy().copy()

    @property
    def loss(self) -> np.ndarray:
        """``(R,)`` loss of the last step, NaN before the first."""
        self._settle()
        return self.status["loss"].double().cpu().numpy().copy()

    @property
    def preparation(self) -> float:
        """Seconds spent on tracing and compiling."""
        return self._program.seconds

    @property
    def parameters(self) -> int:
        """Trainable parameters of one replica."""
        return sum(p[0].numel() for p in self.state.params.values())

    @property
    def memory_bytes(self) -> int:
        """Bytes of one replica's full memory and the strategy's own state."""
        extra = sum(t[0].nbytes for t in pytree.tree_leaves(self.state.extra))
        memory = self.strategy.memory
        if memory is None:
            return extra
        return extra + memory.size(self.shared["x"][0].nbytes, self.strategy.keeps(self.spec), self.dtype)

    # ------------------------------------------------------------------ training
    def begin_experience(self, number: int) -> None:
        """Classes seen up to now compete in the loss, where the stream says so."""
        if self.train_classes == "seen":
            seen = torch.from_numpy(self._seen(number)).to(self.device)
            self.table["mask"].copy_(seen[:, None].expand_as(self.table["mask"]))

    def _seen(self, number: int) -> np.ndarray:
        return np.logical_or.reduce([self.plan.classes_in(e) for e in range(number + 1)])

    def cut(self, block: Block) -> list[Block]:
        """A block, in parts where its inputs are streamed and would take too much memory at once."""
        return [block] if self.window is None else self.window.cut(block)

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Step ``s`` of a block, or as many from there on as are launched at once; how many it was.

        The inputs of the block ``ahead``, where streamed, are read meanwhile.
        """
        if block is not self._block:
            self._load(block, s, ahead)
        count = LAUNCH if self._launches and s + LAUNCH <= self._alike else 1
        if count > 1:
            for launch, plan in self._launches:
                launch(plan, s)
        else:
            for run, fixed, varying in self._calls[s]:
                run(*fixed, *varying)
        self._until = s + count
        return count

    def _load(self, block: Block, start: int, ahead: Block | None) -> None:
        """Upload a block and have its programs ready."""
        self._settle()
        self._block, self._from, self._until = block, start, start
        shared, needed = self._window(block, ahead)
        sizes = {n: self._inputs(block, n, needed) for n in (set(block.size) if self.sized else block.size[:1])}
        if not self._fixed:  # they keep their addresses
            own = {"state": self.state._asdict(), "hyper": self.hyper, "table": self.table}
            self._fixed = [{**pytree.tree_map(lambda t, p=p: t[p], own), "shared": shared} for p in self.parts]
        self._calls, self._launches = [[] for _ in block.size], []
        first = block.size[0]
        self._alike = block.size.index(block.size[-1]) if self.sized and block.size[-1] != first else len(block)
        for part, fixed in zip(self.parts, self._fixed, strict=True):
            leaves, programs = pytree.tree_leaves(fixed), {}
            steps: dict[int, list[tuple[Tensor, ...]]] = {}
            for n, inputs in sizes.items():
                own = pytree.tree_map(lambda t, p=part: t[:, p], inputs)
                plan, spec = pytree.tree_flatten(own)
                steps[n] = list(zip(*(leaf.unbind(0) for leaf in plan), strict=True))
                one = pytree.tree_unflatten(list(steps[n][0]), spec)
                programs[n] = self._program.prepare(fixed, one, cast(Phase, block.phase))
                if n == first and len(block) >= LAUNCH:
                    loss = next(i for i, leaf in enumerate(plan) if leaf is own["loss"])
                    self._record(part, programs[n], leaves, plan, loss)
            for s, calls in enumerate(self._calls):
                n = block.size[s] if self.sized else first
                calls.append((programs[n], leaves, steps[n][s]))
        if len(self._launches) < len(self.parts):
            self._launches = []

    def _record(self, part: Any, run: Any, fixed: list[Tensor], plan: list[Tensor], loss: int) -> None:
        """Have the steps of a part recorded, where the device can launch several at once."""
        record = recorder(self.device)
        if record is None or not self.strategy.traceable:
            return
        key = str(part), id(run)
        if key not in self._recorded:
            state = pytree.tree_leaves(self.state._asdict())
            self._recorded[key] = try_to_record(run, fixed, plan, loss, state, record)
        launch = self._recorded[key]
        if launch is not None:
            self._launches.append((launch, plan))

    def _window(self, block: Block, ahead: Block | None) -> tuple[Tensors, Tensor | None]:
        """What the step's rows are taken from; where inputs are streamed, which rows of theirs are there."""
        if self.window is None:
            return self.shared, None
        # a memory that the strategy fills changes between experiences only
        memory = self.state.memory["index"].contiguous() if self.strategy.fills_memory else None
        held = None if memory is None else memory.cpu()
        needed = self.window.load(block, held)
        if memory is not None:
            self.table["memory_row"].copy_(torch.searchsorted(needed, memory))
        if ahead is not None:
            self.window.prefetch(ahead, held)
        return {**self.shared, "x": self.window.x}, needed

    def _inputs(self, block: Block, size: int, needed: Tensor | None) -> dict[str, Any]:
        """A block's integers on the device, its batches cut to ``size``: batch statistics must see no padding."""
        plan = pytree.tree_map(
            lambda t: t.to(self.device), {"batch": block.batch, "draws": block.draws, "noise": block.noise}
        )
        batch = {k: v.narrow(2, 0, size) for k, v in plan["batch"].items()}
        planned = [draw for draw in plan["draws"] if "index" in draw]
        within, total = (block.first_step, self.plan.total) if self.optimiser.schedule.span == "run" else block.within
        factors = self.optimiser.schedule.factors(within, len(block), total)
        items = {k: torch.cat((batch[k], *(draw[k] for draw in planned)), 2) for k in ("index", "task", "weight")}
        return {
            "items": items if needed is None else items | {"row": torch.searchsorted(needed, items["index"])},
            "slot": batch["slot"],
            "draws": tuple({k: draw[k] for k in ("slot", "uniform") if k in draw} for draw in plan["draws"]),
            "noise": {k: v.narrow(2, 0, size) for k, v in plan["noise"].items()},
            "lr": torch.tensor(factors, dtype=self.dtype, device=self.device)[:, None] * self.hyper["optim"]["lr"],
            "loss": self._losses[: len(block)],
        }

    def _settle(self) -> None:
        """Note which replicas' losses have become non-finite; once in a block, so that no step waits for it."""
        if self._block is None or self._until == self._from:
            return
        losses = self._losses[self._from : self._until]
        bad = ~torch.isfinite(losses)
        first = bad.long().argmax(0) + self._block.first_step + self._from
        found = self.status["diverged"]
        found.copy_(torch.where(bad.any(0) & (found < 0), first, found))
        self.status["loss"].copy_(losses[-1])
        self._from = self._until

    def end_experience(self, number: int) -> None:
        """Let the strategy consolidate."""
        if type(self.strategy).consolidate is Strategy.consolidate:
            return
        index, task = (torch.from_numpy(a).to(self.device) for a in self.plan.arrays(number))
        classes, seen = self.plan.classes_in(number), self._seen(number)

        def one(state: State, hyper: Tensors, table: Tensors, own: Tensors) -> State:
            data = Experienced(
                number,
                own["classes"],
                own["seen"],
                int(classes[0].sum()),
                int(seen[0].sum()),
                own["index"],
                own["task"],
                own["uniform"],
                lambda i, t: gather(self.shared, table, i, t, self.dtype),
            )
            net = FunctionalNet(self.module, state.buffers, table.get("mask"))
            return bound(self.strategy, hyper).consolidate(net, state, data)

        own = {
            "classes": torch.from_numpy(classes).to(self.device),
            "seen": torch.from_numpy(seen).to(self.device),
            "index": index,
            "task": task,
            "uniform": self.plan.uniform(number).to(self.device),
        }
        new = self._each(one, self.state, self.hyper["strategy"], self.table, own)
        write(self.state._asdict(), new._asdict())

    # ------------------------------------------------------------------ answers
    def begin_evaluation(self) -> None:
        """Compute what all predictions of one evaluation share."""
        self._readout = {}
        if type(self.strategy).readout is Strategy.readout:
            return

        def one(state: State, hyper: Tensors, table: Tensors) -> Tensors:
            contents = None
            if "index" in state.memory:
                index = state.memory["index"][:-1]
                valid = torch.arange(index.shape[0], device=self.device) < state.memory["count"]
                contents = Contents(
                    index,
                    state.memory["task"][:-1],
                    valid,
                    lambda i, t: gather(self.shared, table, i, t, self.dtype),
                )
            net = FunctionalNet(self.module, state.buffers)
            return bound(self.strategy, hyper).readout(net, state, contents)

        self._readout = self._each(one, self.state, self.hyper["strategy"], self.table)

    @torch.no_grad()
    def predict(self, x: Tensor, task: Tensor, lifted: bool | None = None) -> Tensor:
        """Log-probabilities ``(R, N, C)``.

        Parameters
        ----------
        x : Tensor
            ``(N, *shape)`` for all replicas, or ``(R, N, *shape)``.
        task : Tensor
            ``(R, N)``.
        lifted : bool, optional
            Default: on a CPU one replica after the other, since a lifted layer takes twice as long there.
        """
        batched = x.ndim == len(self.spec.shape) + 2

        def one(state: State, hyper: Tensors, readout: Tensors, task: Tensor, x: Tensor) -> Tensor:
            net = FunctionalNet(self.module, state.buffers)
            return torch.log_softmax(bound(self.strategy, hyper).logits(net, state, readout, x, task), -1)

        trees = self._placed((self.state, self.hyper["strategy"], self._readout, task))
        if self.lifted and self.device.type != "cpu" if lifted is None else lifted:
            run: Any = torch.func.vmap(one, in_dims=(0, 0, 0, 0, 0 if batched else None))
            return run(*trees, x)
        x = self._placed(x) if batched else x.expand(self.replicas, *x.shape)
        each = [pytree.tree_map(lambda t, r=r: t[r], (*trees, x)) for r in range(self.replicas)]
        return torch.stack([one(*own) for own in each])


def aligned(stacked: Tensor) -> Tensor:
    """The same values, each replica's at a multiple of 64 bytes.

    Examples
    --------
    >>> aligned(torch.ones(3, 10)).stride()
    (16, 1)
    """
    each, row = stacked[0].numel(), 64 // stacked.element_size()
    if stacked.ndim < 2 or each * stacked.element_size() % 64 == 0:
        return stacked
    room = stacked.new_zeros(stacked.shape[0], -(-each // row) * row)
    return room[:, :each].unflatten(1, stacked.shape[1:]).copy_(stacked)
