"""Generic checks that every strategy must pass.

Run them on your own class with `check_strategy`, or one by one in pytest with `parametrize_with_checks`.
"""

from cl_lib.checks.strategy import (  # noqa: F401
    check_beats_chance,
    check_divergence_stays_alone,
    check_hyper_parameters_by_replica,
    check_inputs_not_mutated,
    check_memory,
    check_population_bit_for_bit,
    check_population_equals_single_runs,
    check_record_by_replica,
    check_same_seed,
    check_save_and_load,
    check_seeds_differ,
    check_state_is_kept,
    check_state_shares_no_storage,
    check_uneven_batches,
)
from cl_lib.checks.suite import CHECKS, CheckFailed, check_strategy, parametrize_with_checks
from cl_lib.checks.toy import toy_data
from cl_lib.streams import check_stream

__all__ = [
    "CHECKS",
    "CheckFailed",
    "check_strategy",
    "check_stream",
    "parametrize_with_checks",
    "toy_data",
]
