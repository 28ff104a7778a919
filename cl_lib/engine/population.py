"""A population of replicas that are trained together, with a leading replica axis and in-place updates.

A strategy describes the computation of one replica. This module holds the stacked state of all replicas; `lift`
vectorises over them, and `blocks` and `step` train them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cl_lib.datasets import Dataset
from cl_lib.engine import checkpoint
from cl_lib.engine.blocks import Blocks
from cl_lib.engine.lift import Lift
from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.optim import Optimiser
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.engine.rows import Store, is_streamed
from cl_lib.engine.step import Step, bound, write
from cl_lib.engine.trace import Program
from cl_lib.engine.window import Window
from cl_lib.errors import InputError, nearest
from cl_lib.models.structure import has_batch_statistics
from cl_lib.plan.plan import Block, Plan
from cl_lib.strategies.strategy import Strategy, hyper_parameters
from cl_lib.streams.stream import Classes, SeededStream
from cl_lib.types import OWN, Contents, ExperienceData, Spec, State, Tensors

OPTIONAL = ("momentum", "weight_decay", "clip_norm")
"""Hyper-parameters of an optimiser whose operations are left out if no replica uses them."""


class Population:
    """``R`` replicas of one strategy with the same schedule.

    Parameters
    ----------
    strategy : Strategy
    modules : sequence of R nn.Module
        One initialised network for each replica.
    optimiser : Optimiser
    plan : Plan
    data : Dataset
    realisations : sequence of R SeededStream
    spec : Spec
    hyper : dict
        ``{"strategy.lam": [R values], "optim.lr": ...}``: values that replace fields of the strategy or optimiser.
    train_classes : {"all", "seen", "experience"}
    lifted, together, compiled, bfloat16 : bool
        Whether the step is vectorised over replicas; whether for all replicas at once or, if False, for each replica
        separately, so that no floating-point sum depends on the number of replicas; whether the step is compiled;
        whether networks compute in bfloat16.
    store : {"auto", "resident", "streamed"}
    """

    def __init__(
        self,
        strategy: Strategy,
        modules: Sequence[nn.Module],
        optimiser: Optimiser,
        plan: Plan,
        data: Dataset,
        realisations: Sequence[SeededStream],
        spec: Spec,
        *,
        hyper: Mapping[str, Sequence[float]],
        train_classes: Classes = "all",
        dtype: torch.dtype = torch.float32,
        device: torch.device,
        lifted: bool = True,
        together: bool = True,
        compiled: bool = False,
        bfloat16: bool = False,
        store: Store = "auto",
    ) -> None:
        self.strategy, self.optimiser, self.plan, self.spec = strategy, optimiser, plan, spec
        self.module, self.dtype, self.device = modules[0], dtype, device
        self.train_classes, self.replicas = train_classes, len(modules)
        self.lift = Lift(self.replicas, device, lifted, together)
        self.shared = upload(data, data.train, dtype, device, store)
        self.table = tables(realisations, dtype, device)
        if train_classes != "all":
            mask = torch.stack([r.classes for r in realisations]).to(device)
            self.table["mask"] = mask if train_classes == "experience" else torch.zeros_like(mask)
        if strategy.keeps(spec) or strategy.fills_memory:
            position = torch.arange(self.replicas, device=device)
            self.table["row"] = (position if self.lift.together else torch.zeros_like(position)) * (spec.capacity + 1)
        self.hyper = {
            "strategy": self._numbers("strategy", strategy, hyper),
            "optim": self._numbers("optim", optimiser, hyper),
        }
        self.state = self._initial(modules)
        self._check_trainable()
        step = Step(strategy, self.module, optimiser, spec, dtype, lifted, bfloat16)
        probe = None if lifted or not strategy.liftable else step.probe
        program = Program(step, strategy.traceable, compiled, probe)
        streamed = is_streamed(data.train.x, store)
        window = Window(self.shared["x"], plan, strategy.fills_memory, device) if streamed else None
        per_replica = {"state": self.state._asdict(), "hyper": self.hyper, "table": self.table}
        sized = has_batch_statistics(self.module)
        self.blocks = Blocks(
            program, self.lift.parts, plan, optimiser.schedule, per_replica, self.shared, window, sized
        )

    def __repr__(self) -> str:
        return f"Population({self.replicas} replicas of {type(self.strategy).__name__})"

    def _check_trainable(self) -> None:
        """Raise `InputError` for a phase that names parameters of which there are none."""
        for number in range(self.spec.experiences):
            for phase in self.strategy.phases(number, self.spec):
                missing = [p for p in phase.trainable or () if not any(k.startswith(p) for k in self.state.params)]
                if missing:
                    raise InputError(
                        f"strategy: phase {phase.name!r} trains {missing[0]!r}, but no trainable parameter has a name "
                        f"that begins so{nearest(missing[0], self.state.params)}"
                    )

    # ------------------------------------------------------------------ state
    def _numbers(self, part: str, owner: Any, given: Mapping[str, Sequence[float]]) -> Tensors:
        out = {}
        for field in hyper_parameters(owner):
            value = getattr(owner, field)
            values: list[float | None] = list(given.get(f"{part}.{field}", [value] * self.replicas))
            if values.count(None) == len(values) or (part == "optim" and field in OPTIONAL and not any(values)):
                continue
            if None in values:
                raise InputError(f"{part}.{field}={values}: must be null for all replicas or a number for each")
            out[field] = torch.tensor(values, dtype=self.dtype, device=self.device)
        return out

    def _initial(self, modules: Sequence[nn.Module]) -> State:
        def stack(named: Callable[[nn.Module], list[tuple[str, Tensor]]]) -> Tensors:
            per_module = [dict(named(m)) for m in modules]
            out = {}
            for name in per_module[0]:
                tensor = torch.stack([named_tensors[name].detach() for named_tensors in per_module]).to(self.device)
                out[name] = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            return out

        params = stack(lambda m: [(k, p) for k, p in m.named_parameters() if p.requires_grad])
        buffers = stack(
            lambda m: [*m.named_buffers(), *((k, p) for k, p in m.named_parameters() if not p.requires_grad)]
        )
        memory: Tensors = {}
        if self.strategy.memory is not None:
            tensors = self.strategy.memory.init(self.strategy.keeps(self.spec), self.dtype, self.device)
            memory = {k: v.expand(self.replicas, *v.shape).clone() for k, v in tensors.items()}
        state = State(params, buffers, {}, memory, {})

        def further_parameters(state: State, hyper: Tensors, key: Tensor) -> Tensors:
            net = FunctionalNet(self.module, state.buffers)
            tensors = bound(self.strategy, hyper).parameters(net, state.params, self.spec, key)
            if invalid := [name for name in tensors if not name.startswith(OWN)]:
                raise InputError(
                    f"strategy: parameters returned {invalid[0]!r}; names of additional tensors must begin with {OWN!r}"
                )
            return tensors

        if type(self.strategy).parameters is not Strategy.parameters:
            keys = self.plan.keys(self.spec.experiences).to(self.device)
            further = self.lift.over_replicas(further_parameters, state, self.hyper["strategy"], keys)
            # copied, since a strategy may return one tensor under two names, or the same tensor for all replicas
            params |= {k: t.clone(memory_format=torch.contiguous_format) for k, t in further.items()}
        state = state._replace(optimiser=self.optimiser.init(params, self.hyper["optim"]))

        def initial_state(state: State, hyper: Tensors) -> dict[str, Any]:
            net = FunctionalNet(self.module, state.buffers)
            extra = bound(self.strategy, hyper).init(net, state.params, self.spec)
            return pytree.tree_map(torch.clone, extra)

        state = self.lift.placed(state)
        extra = self.lift.over_replicas(initial_state, state, self.hyper["strategy"])
        # contiguous, since strides must not depend on the number of replicas either
        extra = pytree.tree_map(lambda t: t.clone(memory_format=torch.contiguous_format), extra)
        return state._replace(extra=self.lift.placed(extra))

    @property
    def tree(self) -> dict[str, Any]:
        """The state that must be saved to resume training."""
        self.blocks.settle()
        return {"state": self.state._asdict(), "status": self.blocks.status}

    def restore(self, tree: dict[str, Any]) -> None:
        """Restore a saved tree; the plan must be at the same step."""
        checkpoint.restore(self.tree, tree)

    @property
    def diverged(self) -> np.ndarray:
        """``(R,)`` step at which each replica was detected to be non-finite, -1 if it was not."""
        self.blocks.settle()
        finite = torch.ones(self.replicas, dtype=torch.bool, device=self.device)
        for p in self.state.params.values():
            finite &= torch.isfinite(p.reshape(self.replicas, -1)).all(1)
        diverged = self.blocks.status["diverged"]
        diverged.copy_(torch.where((diverged < 0) & ~finite, self.plan.step, diverged))
        return diverged.cpu().numpy().copy()

    @property
    def loss(self) -> np.ndarray:
        """``(R,)`` loss of the last step, NaN before the first."""
        self.blocks.settle()
        return self.blocks.status["loss"].double().cpu().numpy().copy()

    @property
    def preparation(self) -> float:
        """Seconds spent on tracing and compiling."""
        return self.blocks.program.seconds

    @property
    def parameters(self) -> int:
        """Number of trainable parameters of one replica."""
        return sum(p[0].numel() for p in self.state.params.values())

    @property
    def memory_bytes(self) -> int:
        """Bytes of one replica's full memory and strategy state."""
        extra = sum(t[0].nbytes for t in pytree.tree_leaves(self.state.extra))
        memory = self.strategy.memory
        if memory is None:
            return extra
        sample = self.shared["x"][0].nbytes if self.strategy.keeps_inputs else 0
        return extra + memory.size(sample, self.strategy.keeps(self.spec), self.dtype)

    # ------------------------------------------------------------------ training
    def begin_experience(self, number: int) -> None:
        """Update the mask of the classes in the loss, if the stream has ``train_classes="seen"``."""
        if self.train_classes == "seen":
            seen = torch.from_numpy(self._seen(number)).to(self.device)
            self.table["mask"].copy_(seen[:, None].expand_as(self.table["mask"]))

    def _seen(self, number: int) -> np.ndarray:
        return np.logical_or.reduce([self.plan.classes_in(e) for e in range(number + 1)])

    def cut(self, block: Block) -> list[Block]:
        """Split a block into parts if its inputs are streamed and exceed the window."""
        return self.blocks.cut(block)

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Run step ``s`` of a block, or a whole launch of steps from ``s`` on; return the number of steps run.

        If inputs are streamed, those of the block ``ahead`` are read in the background.
        """
        return self.blocks.observe(block, s, ahead)

    def end_experience(self, number: int) -> None:
        """Call the strategy's ``consolidate`` for every replica."""
        if type(self.strategy).consolidate is Strategy.consolidate:
            return
        index, task = (torch.from_numpy(a).to(self.device) for a in self.plan.arrays(number))
        classes, seen = self.plan.classes_in(number), self._seen(number)

        def consolidate_replica(state: State, hyper: Tensors, table: Tensors, inputs: Tensors, held: Tensors) -> State:
            data = ExperienceData(
                number,
                inputs["classes"],
                inputs["seen"],
                int(classes[0].sum()),
                int(seen[0].sum()),
                inputs["index"],
                inputs["task"],
                inputs["uniform"],
                inputs["key"],
                partial(gather, self.shared, table, dtype=self.dtype),
                self._contents(held, table, inputs=self.strategy.keeps_inputs or number == 0),
            )
            net = FunctionalNet(self.module, state.buffers, table.get("mask"))
            return bound(self.strategy, hyper).consolidate(net, state, data)

        inputs = {
            "classes": torch.from_numpy(classes).to(self.device),
            "seen": torch.from_numpy(seen).to(self.device),
            "index": index,
            "task": task,
            "uniform": self.plan.uniform(number).to(self.device),
            "key": self.plan.keys(number).to(self.device),
        }
        new = self.lift.over_replicas(
            consolidate_replica, self.state, self.hyper["strategy"], self.table, inputs, self.contents()
        )
        write(self.state._asdict(), new._asdict())

    # ------------------------------------------------------------------ prediction
    def begin_evaluation(self) -> None:
        """Compute the quantities shared by all predictions of an evaluation."""
        readout: Tensors = {}
        if type(self.strategy).readout is not Strategy.readout:

            def readout_replica(state: State, hyper: Tensors, table: Tensors, held: Tensors) -> Tensors:
                net = FunctionalNet(self.module, state.buffers)
                return bound(self.strategy, hyper).readout(
                    net, state, self._contents(held, table, self.strategy.keeps_inputs)
                )

            readout = self.lift.over_replicas(
                readout_replica, self.state, self.hyper["strategy"], self.table, self.contents()
            )
        self._evaluated = self.lift.placed((self.state, self.hyper["strategy"], readout))
        self._evaluated_each = [pytree.tree_map(lambda t, r=r: t[r], self._evaluated) for r in range(self.replicas)]

    def _contents(self, held: Tensors, table: Tensors, inputs: bool) -> Contents | None:
        """Contents of one replica's memory; ``inputs`` says whether inputs can be read."""
        if not held:
            return None
        valid = torch.arange(held["index"].shape[0], device=self.device) < held["count"]
        read: Any = partial(gather, self.shared, table, dtype=self.dtype) if inputs else _not_kept
        return Contents(held["index"], held["task"], valid, read)

    def contents(self) -> Tensors:
        """Contents of the memories: ``index`` and ``task`` ``(R, capacity)``, ``count`` ``(R,)``; or empty."""
        memory = self.strategy.memory
        if memory is None:
            return {}
        if memory.planned:
            return {k: v.to(self.device) for k, v in self.plan.contents().items()}
        tensors = self.state.memory  # the last row is the sink for rejected samples
        return {"index": tensors["index"][:, :-1], "task": tensors["task"][:, :-1], "count": tensors["count"]}

    @torch.no_grad()
    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor, lifted: bool | None = None) -> Tensor:
        """Log-probabilities ``(R, N, C)``, after `begin_evaluation`.

        Parameters
        ----------
        x : Tensor or sequence of R Tensor
            ``(N, *shape)`` for all replicas, ``(R, N, *shape)``, or one tensor for each replica.
        task : Tensor
            ``(R, N)``.
        lifted : bool, optional
            Whether to vectorise over replicas. Default: as the step, but never on a CPU, where a vectorised layer takes
            twice as long.
        """

        def predict_replica(replica: tuple[State, Tensors, Tensors], task: Tensor, x: Tensor) -> Tensor:
            state, hyper, readout = replica
            net = FunctionalNet(self.module, state.buffers)
            logits = bound(self.strategy, hyper).logits(net, state, readout, x, task)
            return torch.log_softmax(logits.mT, 0)  # classes first: four times as fast as by rows

        shared = isinstance(x, Tensor) and x.ndim == len(self.spec.shape) + 1
        if self.lift.lifted and self.device.type != "cpu" if lifted is None else lifted:
            run: Any = torch.func.vmap(predict_replica, in_dims=(0, 0, None if shared else 0))
            return run(self._evaluated, task, x if isinstance(x, Tensor) else torch.stack(list(x))).mT
        if isinstance(x, Tensor):
            x = x.expand(self.replicas, *x.shape) if shared else self.lift.placed(x)
        return torch.stack(
            [predict_replica(*replica) for replica in zip(self._evaluated_each, task, x, strict=True)]
        ).mT


def _not_kept(index: Tensor, task: Tensor) -> NoReturn:
    raise InputError("strategy: reads inputs from a memory that keeps none (keeps_inputs=False)")
