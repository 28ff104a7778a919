"""The generic checks have teeth: each rejects a strategy that is broken in what it is about."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mutants import IN_PLACE, MUTANTS, Lazy

import cl_lib
from cl_lib import checks
from cl_lib.strategies import BiC, Finetune, Strategy

CHECKS = {check.__name__.removeprefix("check_"): check for check in checks.CHECKS}


def test_every_check_has_a_mutant():
    assert MUTANTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_check_rejects_its_mutant(name: str, monkeypatch: pytest.MonkeyPatch):
    mutant = MUTANTS[name]
    mutant.patch(monkeypatch)
    with pytest.raises(mutant.kind, match=mutant.message):
        CHECKS[name](mutant.strategy)


@pytest.mark.parametrize("message", IN_PLACE)
def test_a_function_that_changes_its_input_is_named(message: str):
    with pytest.raises(AssertionError, match=message):
        checks.check_inputs_not_mutated(IN_PLACE[message])


def test_a_state_that_grows_is_refused():
    @dataclass(frozen=True)
    class Growing(Strategy):
        def init(self, net, params, spec):
            return {"seen": params["head.bias"].new_zeros(1)}

        def consolidate(self, net, state, data):
            return state._replace(extra={"seen": torch.cat([state.extra["seen"], state.extra["seen"][:1]])})

    with pytest.raises(cl_lib.InputError, match=r"state.extra.seen must stay \(2, 1\)"):
        checks.check_state_is_kept(Growing())


@dataclass(frozen=True)
class InLoss(Strategy):
    def loss(self, net, state, batch, recalled):
        batch.x.mul_(0.5)
        return super().loss(net, state, batch, recalled)


@dataclass(frozen=True)
class InPenalty(Strategy):
    def init(self, net, params, spec):
        return {"steps": params["head.bias"].new_zeros(())}

    def penalty(self, net, state):
        return 0.0 * state.extra["steps"].add_(1.0)


@pytest.mark.parametrize("broken", [InLoss(), InPenalty()])
def test_torch_refuses_what_is_changed_while_a_gradient_is_taken(broken: Strategy):
    with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
        checks.check_inputs_not_mutated(broken)


@pytest.mark.parametrize("base", [Finetune(), cl_lib.strategies.SI(), cl_lib.strategies.DERpp()])
def test_bias_correction_trains_two_tensors(base: Strategy):
    checks.check_state_shares_no_storage(BiC(cl_lib.Memory(20, 8, "class_balanced"), base))


def test_one_number_under_several_indices_is_found():
    @dataclass(frozen=True)
    class Expanded(Strategy):
        def parameters(self, net, params, spec, key):
            return {"~own": params["head.bias"].new_zeros(1).expand(8)}

    checks.check_state_shares_no_storage(Expanded())


def test_replicas_of_one_group_and_of_others_are_compared():
    stream = cl_lib.streams.split(checks.toy_data(each=(120, 200, 140, 320)), 2, class_order="seed")
    sizes = [tuple(len(e.train) for e in stream.realise(seed).experiences) for seed in range(4)]
    assert 1 < len(set(sizes)) < 4


def test_check_strategy_lists_every_failure_and_names_the_class():
    with pytest.raises(checks.CheckFailed, match=r"Lazy fails 2 checks\n(.|\n)*seeds_differ(.|\n)*beats_chance"):
        checks.check_strategy(Lazy())


def test_a_skipped_check_says_why():
    @dataclass(frozen=True)
    class Excused(Lazy):
        skips: ClassVar[dict[str, str]] = {"beats_chance": "it learns nothing", "seeds_differ": "it learns nothing"}

    assert "beats_chance: skipped (it learns nothing)" in checks.check_strategy(Excused())


def test_a_draft_without_a_docstring_passes_all_checks():
    @dataclass(frozen=True)
    class Draft(Finetune):
        pass

    Draft.__doc__ = None
    lines = checks.check_strategy(Draft())
    assert len(lines) == len(CHECKS)
    assert all(line.endswith("passed") for line in lines)


def test_one_pytest_test_for_each_strategy_and_check():
    @dataclass(frozen=True)
    class Excused(Lazy):
        skips: ClassVar[dict[str, str]] = {"beats_chance": "it learns nothing"}

    for strategies, names in (([Finetune(), Excused()], ("Finetune", "Excused")), ({"a": Excused()}, ("a",))):
        mark = checks.parametrize_with_checks(strategies).mark
        assert mark.args[0] == ("strategy", "check")
        cases = mark.args[1]
        assert [case.id for case in cases] == [f"{name}-{check}" for name in names for check in CHECKS]
        for case in cases:
            strategy, check = case.values
            reasons = [m.kwargs["reason"] for m in case.marks]
            skipped = isinstance(strategy, Excused) and check is checks.check_beats_chance
            assert reasons == (["it learns nothing"] if skipped else [])


def test_the_file_of_the_documentation_runs(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "api" / "checks.md").read_text()
    (tmp_path / "test_mine.py").write_text(page.split("```python\n")[1].split("```")[0])
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_mine.py"]
    command += ["-k", "er-same_seed or er_ring-memory"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    for name in ("er-same_seed", "er_ring-memory"):
        assert f"test_mine.py::test_strategy[{name}] PASSED" in done.stdout, done.stdout + done.stderr
    assert "2 passed, 26 deselected" in done.stdout
