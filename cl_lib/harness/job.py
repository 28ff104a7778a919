"""Description of a run: a stream, a strategy and options, checked before training starts."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import nn

from cl_lib.datasets import check_dataset
from cl_lib.datasets.check import check_range
from cl_lib.datasets.mapped import is_mapped
from cl_lib.engine.looped import options_of
from cl_lib.engine.optim import SGD, Optimiser
from cl_lib.engine.rows import Store
from cl_lib.engine.weights import ModelFactory, build, fingerprint, hash_of
from cl_lib.errors import InputError
from cl_lib.memory.store import Memory
from cl_lib.models import MLP
from cl_lib.policies.gated import Gated
from cl_lib.policies.policy import Policy, describe
from cl_lib.service.history import check_windows
from cl_lib.strategies.strategy import Strategy, hyper_parameters
from cl_lib.streams.stream import Stream
from cl_lib.types import Learner, Spec
from cl_lib.validation import as_python, check_choice, check_flag, check_whole, is_number, is_whole

MOST = 10_000
"""Maximum number of seeds of one run."""
LearnerFactory = Callable[[int], Learner]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Replica:
    """One replica of the population: its seed and hyper-parameters."""

    seed: int
    hyper: dict[str, float]


@dataclass(frozen=True)
class Job:
    """Description of one run; `cl_lib.run` documents the fields."""

    stream: Stream
    strategy: Strategy | LearnerFactory | Learner
    model: nn.Module | ModelFactory = field(default_factory=lambda: MLP.factory())
    optim: Optimiser = field(default_factory=lambda: SGD())
    seeds: int | Sequence[int] = 1
    epochs: int | Sequence[int] = 1
    batch_size: int = 10
    eval_every: int = 1
    eval_on: Literal["test", "valid"] = "test"
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    lift: Literal["auto", "always", "never"] = "auto"
    compile: bool = False
    matmul: Literal["float32", "tf32", "bf16"] = "float32"
    store: Store = "auto"
    save_predictions: bool = False
    policy: Policy | None = None

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python numbers, which are valid JSON."""
        for name in ("seeds", "epochs", "batch_size", "eval_every", "grid"):
            object.__setattr__(self, name, as_python(getattr(self, name)))
        for name in ("strategy", "optim"):
            object.__setattr__(self, name, as_python(getattr(self, name), arrays=False))

    def __repr__(self) -> str:
        points = f" x {len(self.replicas) // len(self.seed_list)} grid points" if self.grid else ""
        seeds = f"{len(self.seed_list)} seed{'s' if len(self.seed_list) != 1 else ''}"
        return f"Job({self.name} on {self.stream.name}, {seeds}{points})"

    # ------------------------------------------------------------------ derived properties
    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def epoch_list(self) -> list[int]:
        return [self.epochs] * self.stream.length if isinstance(self.epochs, int) else list(self.epochs)

    @property
    def replicas(self) -> list[Replica]:
        """One replica for each grid point and seed, grouped by grid point."""
        points = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return [Replica(seed, point) for point in points for seed in self.seed_list]

    @property
    def torch_device(self) -> torch.device:
        chosen = self.device
        if chosen == "auto":
            chosen = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(chosen)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def name(self) -> str:
        """The strategy's or learner's name."""
        kind = self.strategy if isinstance(self.strategy, type) else type(self.strategy)
        if kind.__name__ in ("function", "partial", "method"):
            return str(getattr(self.strategy, "__name__", getattr(self.strategy, "func", kind)))
        return kind.__name__.lower()

    @cached_property
    def module(self) -> nn.Module:
        """The network of the first seed; building it checks the model before training starts."""
        spec = self.spec()
        return build(self.model, spec.shape, spec.classes, self.seed_list[:1])[0]

    @cached_property
    def _fingerprint(self) -> dict[str, str]:
        return fingerprint(self.module, self.spec().shape)

    @cached_property
    def _stream(self) -> dict[str, Any]:
        """Description of the stream in the record; computed once, since the hash reads all data."""
        return {**self.stream.describe(), "realisation": self._realisation}

    @cached_property
    def _realisation(self) -> str:
        """A hash of the first seed's training and test samples."""
        real = self.stream.realise(self.seed_list[0])
        parts = {f"train {i}": e.train for i, e in enumerate(real.experiences)}
        parts |= {f"task {i}": e.task for i, e in enumerate(real.experiences)}
        parts |= {f"test {i}": test for i, test in enumerate(real.tests)}
        parts |= {f"valid {i}": valid for i, valid in enumerate(real.valids)}
        transform = real.transform._asdict() if real.transform is not None else {}
        return hash_of({**parts, "classes": real.classes, "targets": real.targets, **transform})

    @property
    def parameters(self) -> int:
        """Number of trainable parameters of one replica."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)

    def evaluates(self, experience: int) -> bool:
        """Whether replicas are evaluated after an experience, counted from 0."""
        number = experience + 1
        return number % self.eval_every == 0 or number == self.stream.length

    def make_learner(self, seed: int) -> Learner:
        """Make the plain learner of a seed; a `Learner` object, which `check` allows for one seed only, is returned."""
        make: Any = self.strategy
        learner = make if isinstance(make, Learner) and not isinstance(make, type) else make(seed)
        if not isinstance(learner, Learner):
            raise InputError(
                f"strategy: the function returned a {type(learner).__name__}, which is not a Learner (observe, "
                "end_experience, predict)"
            )
        return learner

    def spec(self, features: int = 0) -> Spec:
        memory = self.strategy.memory if isinstance(self.strategy, Strategy) else None
        return Spec(
            classes=len(self.stream.classes),
            experiences=self.stream.length,
            capacity=memory.capacity if memory is not None else 0,
            shape=tuple(self.stream.data.shape),
            features=features,
        )

    def describe(self) -> dict[str, Any]:
        """Everything that determines the result, as JSON values."""
        strategy: Any = self.strategy
        if isinstance(strategy, Strategy):
            kind = type(strategy)
            strategy = {
                "name": kind.__name__,
                "class": f"{kind.__module__}.{kind.__qualname__}",
                **dataclasses.asdict(strategy),
            }
        else:
            strategy = {"name": self.name, "options": options_of(self.make_learner(self.seed_list[0]))}
        return {
            "stream": self._stream,
            "strategy": strategy,
            "model": str(self.module),
            "network": self._fingerprint,
            "optim": {"name": type(self.optim).__name__, **dataclasses.asdict(self.optim)},  # type: ignore[call-overload]
            "seeds": self.seed_list,
            "epochs": self.epochs if isinstance(self.epochs, int) else list(self.epochs),
            "batch_size": self.batch_size,
            "eval_every": self.eval_every,
            "eval_on": self.eval_on,
            "grid": {k: list(v) for k, v in self.grid.items()},
            "device": self.torch_device.type,
            "dtype": self.dtype,
            "lift": self.lift,
            "compile": self.compile,
            "matmul": self.matmul,
            "store": self.store,
            **({"save_predictions": True} if self.save_predictions else {}),
            **({"policy": describe(self.policy)} if self.policy is not None else {}),
        }

    # ------------------------------------------------------------------ validation
    def check(self) -> None:
        """Raise `InputError` for every error that can be detected before training."""
        if not isinstance(self.stream, Stream):
            raise InputError(f"stream: expected a cl_lib stream, got {type(self.stream).__name__}")
        _seeds(self.seeds)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("eval_every", self.eval_every, 1)
        if isinstance(self.epochs, int):
            check_whole("epochs", self.epochs, 1)
        else:
            if isinstance(self.epochs, str) or not isinstance(self.epochs, Sequence):
                check_whole("epochs", self.epochs, 1)
            for value in self.epochs:
                check_whole("epochs", value, 1)
            if len(self.epochs) != self.stream.length:
                raise InputError(
                    f"epochs: a list needs one number for each of the {self.stream.length} experiences, "
                    f"got {len(self.epochs)}"
                )
        for name, chosen, known in (
            ("eval_on", self.eval_on, ("test", "valid")),
            ("dtype", self.dtype, tuple(DTYPES)),
            ("engine.lift", self.lift, ("auto", "always", "never")),
            ("engine.matmul", self.matmul, ("float32", "tf32", "bf16")),
            ("engine.store", self.store, get_args(Store)),
        ):
            check_choice(name, chosen, known)
        check_flag("engine.compile", self.compile)
        check_flag("save_predictions", self.save_predictions)
        self._check_device()
        self._check_data  # noqa: B018
        self.optim.check()
        if isinstance(self.strategy, type) and issubclass(self.strategy, Strategy):
            raise InputError(
                f"strategy: {self.strategy.__name__} is a class; give an object, {self.strategy.__name__}()"
            )
        if isinstance(self.strategy, Strategy):
            self._check_strategy(self.strategy)
        elif not callable(self.strategy) and not isinstance(self.strategy, Learner):
            raise InputError(
                f"strategy: {type(self.strategy).__name__} is neither a Strategy, nor a Learner, nor a function from a "
                "seed to a Learner"
            )
        elif self.grid:
            raise InputError("grid: only a Strategy's hyper-parameters can differ by replica, not a plain Learner's")
        elif not callable(self.strategy) and len(self.seed_list) > 1:
            raise InputError("strategy: one Learner object has one seed; give a function from a seed to a Learner")
        if self.eval_on == "valid" and not all(map(len, self.stream.realise(self.seed_list[0]).valids)):
            raise InputError("eval_on=valid: this stream holds no validation data; make it with stream.valid above 0")
        if self.policy is not None:
            self._check_policy(self.policy)

    @cached_property
    def _check_data(self) -> None:
        """Checked once per job, however often `check` is called."""
        check_range(check_dataset(self.stream.data), self.torch_dtype)

    def check_unchanged(self) -> None:
        """Warn if the data were changed in place during the run; memory-mapped data are not checked."""
        data = self.stream.data
        if is_mapped(data.train.x) or is_mapped(data.test.x) or data.fingerprint() == self._stream["data_hash"]:
            return
        warnings.warn(
            f"data {data.name}: changed during the run, so its results match no version of the data; pass a copy",
            stacklevel=3,
        )

    def _check_device(self) -> None:
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device=cuda: no CUDA device is available here; use device=cpu or device=auto")
        if self.matmul != "float32" and self.dtype != "float32":
            raise InputError(f"engine.matmul={self.matmul}: is for dtype=float32, not {self.dtype}")
        if self.matmul == "tf32" and self.torch_device.type != "cuda":
            raise InputError("engine.matmul=tf32: only CUDA devices have it; use engine.matmul=float32")
        if self.matmul == "bf16" and not isinstance(self.strategy, Strategy):
            raise InputError("engine.matmul=bf16: a plain Learner is not cast; use a Strategy")

    def _check_policy(self, policy: Policy) -> None:
        if not isinstance(policy, Policy):
            raise InputError(f"policy={policy!r}: must be a cl_lib.policies.Policy")
        policy.check()
        stream, strategy = self.stream, self.strategy
        if not isinstance(strategy, Strategy):
            raise InputError(
                "policy: a plain Learner cannot be given its state back; use a Strategy, or cl_lib.backtest"
            )
        if strategy.memory is not None and strategy.memory.planned and strategy.keeps(self.spec()):
            raise InputError(
                f"policy: {type(strategy).__name__} keeps outputs of the model with the samples in memory, which go on "
                "while updates are declined; use cl_lib.backtest"
            )
        real = stream.realise(self.seed_list[0])
        sets = real.tests if self.eval_on == "test" else real.valids
        check_windows("policy", self._stream, [len(samples) for samples in sets])
        if any(p.source == "full" for e in range(stream.length) for p in strategy.phases(e, self.spec())):
            raise InputError(
                f"policy: {type(strategy).__name__} trains on windows to come; use Cumulative to train on all windows "
                "so far"
            )
        if self.eval_every != 1:
            raise InputError(f"eval_every={self.eval_every}: must be 1 with a policy, which decides after every window")
        if policy.needs_predictions and not self.save_predictions:
            raise InputError(
                f"policy: {type(policy).__name__} needs predictions of single samples; add save_predictions=true"
            )
        if isinstance(policy, Gated):
            raise InputError(
                "policy: a gate deploys an older model, whose state is not kept in a run; use cl_lib.backtest"
            )

    def _check_strategy(self, strategy: Strategy) -> None:
        if strategy.memory is not None:
            if not isinstance(strategy.memory, Memory):
                raise InputError(f"strategy.memory={strategy.memory!r}: must be a cl_lib.Memory")
            strategy.memory.check(classes=self.spec().classes)
            fits = "does not fill its memory itself; choose reservoir, class_balanced or ring"
            if strategy.fills_memory:
                fits = "chooses itself what its memory holds; set 'strategy'"
            if strategy.memory.planned == strategy.fills_memory:
                named = f"strategy.memory.admission={strategy.memory.admission!r}: {type(strategy).__name__}"
                raise InputError(f"{named} {fits}")
        strategy.check(self.spec())
        sources = {p.source for e in range(self.stream.length) for p in strategy.phases(e, self.spec())}
        admission = strategy.memory.admission if strategy.memory is not None else None
        if "memory" in sources and admission not in ("reservoir", "class_balanced"):
            raise InputError(
                f"strategy.memory.admission={admission!r}: {type(strategy).__name__} trains on what its memory holds, "
                "whose size must be known before the run; choose reservoir or class_balanced"
            )
        if "memory" in sources and not strategy.keeps_inputs:
            raise InputError(
                f"strategy: {type(strategy).__name__} trains on what its memory holds, but keeps_inputs=False: "
                "its inputs are not stored"
            )
        owners = {"strategy": strategy, "optim": self.optim}
        known = [f"{part}.{name}" for part, owner in owners.items() for name in hyper_parameters(owner)]
        for name, values in self.grid.items():
            if name not in known:
                raise InputError(
                    f"grid.{name}: no float hyper-parameter of that name; a grid may vary {', '.join(sorted(known))}"
                )
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                raise InputError(f"grid.{name}={values!r}: must be a list of at least one number")
            for value in values:
                if value is None:
                    raise InputError(
                        f"grid.{name}={list(values)}: null cannot be mixed with numbers, since all replicas run "
                        "one program; run null separately"
                    )
                if not is_number(value):
                    raise InputError(f"grid.{name}: {value!r} is not a number")
            if len(set(values)) != len(values):
                raise InputError(f"grid.{name}={list(values)}: holds a value twice")
        for point in {tuple(r.hyper.items()) for r in self.replicas}:
            for part, owner in owners.items():
                hyper = {k.split(".", 1)[1]: v for k, v in point if k.split(".", 1)[0] == part}
                if hyper:
                    changed: Any = dataclasses.replace(owner, **hyper)  # type: ignore[type-var]
                    changed.check(self.spec()) if part == "strategy" else changed.check()


def _seeds(seeds: Any) -> None:
    if is_whole(seeds):
        check_whole("seeds", seeds, 1)
        if seeds > MOST:
            raise InputError(
                f"seeds={seeds}: at most {MOST:,} at once; a count of seeds, or a list such as seeds=[{seeds}]"
            )
        return
    if isinstance(seeds, (str, bytes, bool)) or not isinstance(seeds, Sequence) or not seeds:
        raise InputError(f"seeds={seeds!r}: must be a count, 1 or more, or a list of seeds")
    for seed in seeds:
        if not is_whole(seed) or seed < 0:
            raise InputError(f"seeds: {seed!r} is not a valid seed; seeds are whole numbers, 0 or more")
        if seed >= 2**63:
            raise InputError(f"seeds: {seed} is too large; seeds are below 2**63")
    twice = sorted({s for s in seeds if list(seeds).count(s) > 1})
    if twice:
        raise InputError(
            f"seeds={list(seeds)}: {', '.join(map(str, twice))} given more than once; each seed counts once"
        )
