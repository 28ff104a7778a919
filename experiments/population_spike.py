"""Does "plan, trace, run, for a whole population" hold? The spike the contracts rest on.

Online EWC and ER on Split-Fashion-MNIST (MLP 784-100-100-10, batch 10 + 10, SGD): R replicas that differ in
seed, learning rate and lambda, planned as integers, lifted by ``vmap`` and traced once by ``make_fx``.

* equality: R = 32 at once against 32 single hand-written ``torch.optim`` runs, float64, 50 steps;
* independence: replica r of R = 32 against the same replica run lifted at R = 1 and R = 3, bit for bit, float32;
* speed: milliseconds per step and replica beside the hand-written loop in the same process.

    python experiments/population_spike.py            # one thread; prints the table of docs/design.md

Deliberately free of cl_lib, so that the library can be checked against it.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

BATCH, RECALL, CAPACITY, GAMMA = 10, 10, 500, 0.9


def read(root: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    with gzip.open(root / f"{part}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(root / f"{part}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)
    return torch.tensor(x), torch.tensor(y, dtype=torch.long)


def make_net(seed: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers).to(dtype)


def make_plan(y: torch.Tensor, seed: int, steps: int) -> dict[str, np.ndarray]:
    """Batches, recalled items and their weights for the first `steps` steps of a class-incremental stream."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero((y == 2 * e) | (y == 2 * e + 1))) for e in range(5)])
    memory, offered = np.zeros(CAPACITY, np.int64), 0
    plan = {"index": [], "recalled": [], "weight": []}
    for s in range(steps):
        batch, filled = order[s * BATCH : (s + 1) * BATCH], min(offered, CAPACITY)
        drawn = rng.permutation(filled)[:RECALL] if filled else np.zeros(0, np.int64)
        pad = RECALL - len(drawn)
        plan["index"].append(batch)
        plan["recalled"].append(np.pad(memory[drawn], (0, pad)))
        plan["weight"].append(np.pad(np.ones(len(drawn)), (0, pad)))
        for i in batch:
            slot = offered if offered < CAPACITY else rng.integers(offered + 1)
            offered += 1
            if slot < CAPACITY:
                memory[slot] = i
    return {k: np.stack(v) for k, v in plan.items()}


# ---------------------------------------------------------------- one replica, by hand
def hand_loop(kind, x, y, plan, net, lr, lam, steps, curvature=None):
    optimiser = torch.optim.SGD(net.parameters(), lr=lr)
    dtype = next(net.parameters()).dtype
    for s in range(steps):
        index = torch.from_numpy(plan["index"][s])
        if kind == "er":
            keep = torch.from_numpy(plan["recalled"][s][plan["weight"][s] > 0])
            index = torch.cat([index, keep])
        loss = nn.functional.cross_entropy(net(x[index].to(dtype) / 255), y[index])
        if kind == "ewc":
            fisher, anchor = curvature
            loss = loss + 0.5 * lam * sum((fisher[k] * (p - anchor[k]) ** 2).sum() for k, p in net.named_parameters())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {k: p.detach() for k, p in net.named_parameters()}


# ---------------------------------------------------------------- one replica's maths, lifted and traced
def make_step(kind, template, lifted):
    def one(params, extra, hyper, x, y, weight):
        def loss(params):
            logits = functional_call(template, params, (x,))
            nll = -torch.log_softmax(logits, -1).gather(-1, y[:, None])[:, 0]
            value = (nll * weight).sum() / weight.sum()
            if kind == "ewc":
                value = value + 0.5 * hyper["lam"] * sum(
                    (extra["fisher"][k] * (p - extra["anchor"][k]) ** 2).sum() for k, p in params.items()
                )
            return value

        return grad(loss)(params)

    lift = vmap(one) if lifted else one

    def step(tree):
        plan, params = tree["plan"], tree["params"]
        index, weight = plan["index"], torch.ones_like(plan["index"], dtype=plan["weight"].dtype)
        if kind == "er":
            index, weight = torch.cat([index, plan["recalled"]], -1), torch.cat([weight, plan["weight"]], -1)
        x, y = tree["x"][index].to(weight.dtype) / 255, tree["y"][index]
        grads = lift(params, tree["extra"], tree["hyper"], x, y, weight)
        lr = tree["hyper"]["lr"]
        for k, p in params.items():  # in place, outside the lift
            p.addcmul_(grads[k], lr.view(lr.shape + (1,) * (p.ndim - lr.ndim)), value=-1)

    return step


def trace(step, tree, compiled=False):
    flat, spec = pytree.tree_flatten(tree)

    def program(flat):
        step(pytree.tree_unflatten(flat, spec))
        return []

    before = [t.clone() for t in flat]
    graph = make_fx(program)(flat)  # runs once for real: undo what it did in place
    for t, b in zip(flat, before, strict=True):
        t.copy_(b)
    return torch.compile(graph, dynamic=False) if compiled else graph


def population(kind, x, y, plans, nets, lr, lam, steps, extra, *, lifted=True, compiled=False):
    dtype = next(nets[0].parameters()).dtype
    params = {k: v.detach().clone() for k, v in stack_module_state(nets)[0].items()}
    plan = {k: torch.from_numpy(np.stack([p[k][:steps] for p in plans], 1)) for k in plans[0]}
    plan["weight"] = plan["weight"].to(dtype)
    tree = {"params": params, "hyper": {"lr": lr.to(dtype), "lam": lam.to(dtype)}, "extra": extra, "x": x, "y": y}
    if not lifted:
        one = {k: tree[k] for k in ("params", "hyper", "extra")}
        tree.update(pytree.tree_map(lambda t: t[0], one))
        plan = {k: v[:, 0] for k, v in plan.items()}
    template = nets[0]
    at = lambda s: {**tree, "plan": {k: v[s] for k, v in plan.items()}}
    graph = trace(make_step(kind, template, lifted), at(0), compiled)
    static, _ = pytree.tree_flatten(tree)
    inputs = [pytree.tree_flatten(at(s))[0] for s in range(steps)]
    if compiled:
        saved = [t.clone() for t in static]
        graph(inputs[0])
        for t, b in zip(static, saved, strict=True):
            t.copy_(b)
    start = time.perf_counter()
    for flat in inputs:
        graph(flat)
    return params, (time.perf_counter() - start) / steps / len(nets) * 1e3


def curvature(nets, seed):
    """Stand-in Fisher and anchor: the step does not care where they come from."""
    stacked, _ = stack_module_state(nets)
    g = torch.Generator().manual_seed(seed)
    fisher = {k: torch.rand(v.shape, generator=g, dtype=v.dtype) * GAMMA for k, v in stacked.items()}
    anchor = {k: v.detach() + 0.01 for k, v in stacked.items()}
    return {"fisher": fisher, "anchor": anchor}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--steps", type=int, default=400, help="steps of a timing")
    parser.add_argument("--compiled", action="store_true", help="time torch.compile as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y = read(args.data, "train")

    R = 32
    lr, lam = torch.logspace(-2, -1, R, dtype=torch.float64), torch.logspace(-1, 1, R, dtype=torch.float64)
    plans = [make_plan(y, seed, max(50, args.steps)) for seed in range(R)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    for kind in ("er", "ewc"):
        make = lambda dtype, count=R: [make_net(seed, dtype) for seed in range(count)]
        nets, extra = make(torch.float64), curvature(make(torch.float64), 1)
        together, _ = population(kind, x, y, plans, nets, lr, lam, 50, extra)
        worst = 0.0
        for r in range(R):
            own = pytree.tree_map(lambda t, r=r: t[r], extra)
            alone = hand_loop(
                kind,
                x,
                y,
                plans[r],
                make_net(r, torch.float64),
                float(lr[r]),
                float(lam[r]),
                50,
                (own["fisher"], own["anchor"]),
            )
            worst = max(worst, *((together[k][r] - alone[k]).abs().max().item() for k in alone))
        print(f"{kind}: R=32 against 32 hand loops, float64, 50 steps: largest difference {worst:.1e}")
        assert worst < 1e-9

        nets, extra = make(torch.float32), curvature(make(torch.float32), 1)
        together, _ = population(kind, x, y, plans, nets, lr, lam, 50, extra)
        for size in (1, 3):
            some, _ = population(
                kind,
                x,
                y,
                plans[:size],
                make(torch.float32, size),
                lr[:size],
                lam[:size],
                50,
                pytree.tree_map(lambda t, size=size: t[:size], extra),
            )
            same = all(torch.equal(some[k], together[k][:size]) for k in some)
            print(f"{kind}: lifted R={size} equals the first of R=32 bit for bit in float32: {same}")

        hand = []
        own = pytree.tree_map(lambda t: t[0], extra)
        for _ in range(3):
            net = make_net(0, torch.float32)
            hand_loop(kind, x, y, plans[0], net, 0.05, 1.0, 20, (own["fisher"], own["anchor"]))
            start = time.perf_counter()
            hand_loop(kind, x, y, plans[0], net, 0.05, 1.0, args.steps, (own["fisher"], own["anchor"]))
            hand.append((time.perf_counter() - start) / args.steps * 1e3)
        base = float(np.median(hand))
        print(f"{kind}: hand loop {base:.3f} ms a step")
        for size, lifted in ((1, False), (1, True), (10, True), (32, True)):
            for compiled in (False, True) if args.compiled else (False,):
                sub = pytree.tree_map(lambda t, size=size: t[:size], extra)
                times = [
                    population(
                        kind,
                        x,
                        y,
                        plans[:size],
                        make(torch.float32, size),
                        lr[:size],
                        lam[:size],
                        args.steps,
                        sub,
                        lifted=lifted,
                        compiled=compiled,
                    )[1]
                    for _ in range(3)
                ]
                name = ("compiled" if compiled else "traced") + ("" if lifted else ", unlifted")
                ms = float(np.median(times))
                print(f"{kind}: R={size:<2} {name:<18} {ms:.3f} ms a step and replica, ratio {ms / base:.2f}")


if __name__ == "__main__":
    main()
