"""`check_strategy`, which runs all checks of a strategy, and a pytest decorator with one test for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from cl_lib.checks import strategy as generic
from cl_lib.strategies.strategy import Strategy

if TYPE_CHECKING:
    import pytest


class CheckFailed(AssertionError):
    """Raised if a strategy fails checks; the message lists every failed check."""


CHECKS: tuple[Callable[[Strategy], None], ...] = (
    generic.check_same_seed,
    generic.check_seeds_differ,
    generic.check_inputs_not_mutated,
    generic.check_population_equals_single_runs,
    generic.check_population_bit_for_bit,
    generic.check_divergence_stays_alone,
    generic.check_hyper_parameters_by_replica,
    generic.check_state_is_kept,
    generic.check_state_shares_no_storage,
    generic.check_record_by_replica,
    generic.check_save_and_load,
    generic.check_memory,
    generic.check_uneven_batches,
    generic.check_beats_chance,
)


def parametrize_with_checks(strategies: Mapping[str, Strategy] | Iterable[Strategy]) -> pytest.MarkDecorator:
    """Decorate ``test(strategy, check)`` to run as one named pytest test for each strategy and check.

    Checks listed in the ``skips`` of a strategy's class are skipped, with the reason given there.

    Parameters
    ----------
    strategies : mapping or iterable of Strategy
        Tests are named by the keys of a mapping, otherwise by the classes.

    Examples
    --------
    >>> import cl_lib
    >>> @parametrize_with_checks([cl_lib.strategies.Finetune(), cl_lib.strategies.ER()])
    ... def test_strategy(strategy, check):
    ...     check(strategy)
    """
    import pytest

    cases = []
    pairs = strategies.items() if isinstance(strategies, Mapping) else [(type(s).__name__, s) for s in strategies]
    for name, strategy in pairs:
        for check in CHECKS:
            reason = strategy.skips.get(_name(check))
            marks = () if reason is None else pytest.mark.skip(reason=reason)
            cases.append(pytest.param(strategy, check, id=f"{name}-{_name(check)}", marks=marks))
    return pytest.mark.parametrize(("strategy", "check"), cases)


def _name(check: Callable[[Strategy], None]) -> str:
    return check.__name__.removeprefix("check_")


def check_strategy(strategy: Strategy) -> list[str]:
    """Run all generic checks on a strategy; takes about ten seconds.

    Parameters
    ----------
    strategy : Strategy
        An instance; its class may list checks that do not apply in ``skips: ClassVar[dict[str, str]]``, each with the
        reason.

    Returns
    -------
    list of str
        One line for each check: passed, or skipped and why.

    Raises
    ------
    CheckFailed
        If a check fails; the message lists every failed check.

    Examples
    --------
    >>> import cl_lib
    >>> cl_lib.checks.check_strategy(cl_lib.strategies.Finetune())[0]
    'same_seed: passed'
    """
    lines, failures = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for check in CHECKS:
            name = _name(check)
            if name in strategy.skips:
                lines.append(f"{name}: skipped ({strategy.skips[name]})")
                continue
            try:
                check(strategy)
            except Exception as error:  # any error in a user's class is a failed check
                failures.append(f"{name}: {type(error).__name__}: {error}")
            else:
                lines.append(f"{name}: passed")
    finally:
        torch.set_num_threads(threads)
    if failures:
        raise CheckFailed(f"{type(strategy).__name__} fails {len(failures)} checks\n" + "\n".join(failures))
    return lines
