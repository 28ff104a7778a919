"""Accuracy, transfer and anytime accuracy, against arithmetic by hand and naive loops."""

import numpy as np
import pytest

from cl_lib.errors import InputError
from cl_lib.metrics import (
    accuracy,
    anytime_accuracy,
    average_accuracy,
    bwt,
    forgetting,
    fwt,
    learning_accuracy,
)

HAND = np.array(
    [
        [0.10, 0.20, 0.30],  # untrained
        [0.90, 0.25, 0.35],  # after experience 1
        [0.95, 0.80, 0.20],  # after experience 2
        [0.60, 0.70, 0.85],  # after experience 3
    ]
)


def test_by_hand() -> None:
    assert accuracy(HAND) == pytest.approx((0.60 + 0.70 + 0.85) / 3)
    assert average_accuracy(HAND) == pytest.approx(
        (0.90 + (0.95 + 0.80) / 2 + (0.60 + 0.70 + 0.85) / 3) / 3  # after 1, after 2, after 3
    )
    assert learning_accuracy(HAND) == pytest.approx((0.90 + 0.80 + 0.85) / 3)
    # Experience 1 was best after experience 2, not right after it was learned.
    assert forgetting(HAND) == pytest.approx(((0.95 - 0.60) + (0.80 - 0.70)) / 2)
    assert bwt(HAND) == pytest.approx(((0.60 - 0.90) + (0.70 - 0.80)) / 2)
    assert fwt(HAND) == pytest.approx(((0.25 - 0.20) + (0.20 - 0.30)) / 2)


def test_where_peers_disagree_on_forgetting() -> None:
    """Avalanche subtracts the last accuracy from the first one after learning; Chaudhry 2018 from the best one."""
    first_minus_last = ((0.90 - 0.60) + (0.80 - 0.70)) / 2
    assert first_minus_last == pytest.approx(0.2)
    assert forgetting(HAND) == pytest.approx(0.225)
    assert -bwt(HAND) == pytest.approx(first_minus_last)  # the other one has a name already


def test_where_peers_disagree_on_backward_transfer() -> None:
    """Continuum and CapyMOA average the whole lower triangle; Lopez-Paz & Ranzato 2017 only the last row."""
    lower_triangle = ((0.95 - 0.90) + (0.60 - 0.90) + (0.70 - 0.80)) / 3
    assert lower_triangle == pytest.approx(-0.35 / 3)
    assert bwt(HAND) == pytest.approx(-0.2)


def test_where_peers_disagree_on_forward_transfer() -> None:
    """Some leave out the untrained network, and report chance level as transfer."""
    without_random_row = (0.25 + 0.20) / 2
    assert without_random_row == pytest.approx(0.225)
    assert fwt(HAND) == pytest.approx(-0.025)


def naive(matrix: np.ndarray, learned: list[int], before: list[int]) -> dict[str, float]:
    last, size = matrix.shape[0] - 1, matrix.shape[1]
    rows = []
    for i in range(1, last + 1):
        seen = [float(matrix[i, j]) for j in range(size) if before[j] < i]
        rows.append(sum(seen) / len(seen))
    lost, moved, gained = [], [], []
    for j in range(size):
        if learned[j] < last:
            lost.append(max(float(matrix[i, j]) for i in range(1, last)) - float(matrix[last, j]))
            moved.append(float(matrix[last, j] - matrix[learned[j], j]))
        if before[j] > 0:
            gained.append(float(matrix[before[j], j] - matrix[0, j]))
    return {
        "accuracy": sum(float(matrix[last, j]) for j in range(size)) / size,
        "average": sum(rows) / len(rows),
        "learning": sum(float(matrix[learned[j], j]) for j in range(size)) / size,
        "forgetting": sum(lost) / len(lost),
        "bwt": sum(moved) / len(moved),
        "fwt": sum(gained) / len(gained),
    }


@pytest.mark.parametrize("size", [2, 5, 10])
def test_against_loops(size: int) -> None:
    replicas = np.random.default_rng(size).random((3, 2, size + 1, size))
    ours = {
        "accuracy": accuracy(replicas),
        "average": average_accuracy(replicas),
        "learning": learning_accuracy(replicas),
        "forgetting": forgetting(replicas),
        "bwt": bwt(replicas),
        "fwt": fwt(replicas),
    }
    for at in np.ndindex(3, 2):
        expected = naive(replicas[at], list(range(1, size + 1)), list(range(size)))
        for name, values in ours.items():
            assert values.shape == (3, 2)
            np.testing.assert_allclose(values[at], expected[name], rtol=0, atol=1e-14)


def test_thinned_rows_of_an_online_stream() -> None:
    matrix = np.random.default_rng(0).random((9, 3))
    learned, before = [3, 5, 8], [0, 2, 5]
    expected = naive(matrix, learned, before)
    assert average_accuracy(matrix, before) == pytest.approx(expected["average"])
    assert learning_accuracy(matrix, learned) == pytest.approx(expected["learning"])
    assert forgetting(matrix, learned) == pytest.approx(expected["forgetting"])
    assert bwt(matrix, learned) == pytest.approx(expected["bwt"])
    assert fwt(matrix, before) == pytest.approx(expected["fwt"])


def test_one_experience_has_no_transfer() -> None:
    matrix = np.array([[0.1], [0.9]])
    assert accuracy(matrix) == average_accuracy(matrix) == learning_accuracy(matrix) == 0.9
    for measure in (forgetting, bwt, fwt):
        assert np.isnan(measure(matrix))
        assert measure(np.stack([matrix] * 4)).shape == (4,)


def test_all_experiences_at_once() -> None:
    joint = np.array([[0.1, 0.2], [0.8, 0.9]])[:, [0, 1, 1]]
    assert learning_accuracy(joint, learned=[1, 1, 1]) == accuracy(joint)
    assert average_accuracy(joint, before=[0, 0, 0]) == accuracy(joint)
    assert np.isnan(forgetting(joint, learned=[1, 1, 1]))
    assert np.isnan(fwt(joint, before=[0, 0, 0]))


def test_diverged_replica_and_unmeasured_future() -> None:
    both = np.stack([HAND, HAND])
    both[0, 2:] = np.nan
    for measure in (accuracy, average_accuracy, learning_accuracy, forgetting, bwt, fwt):
        result = measure(both)
        assert np.isnan(result[0])
        assert result[1] == measure(HAND)
    unmeasured = np.where(np.tri(4, 3, -1, dtype=bool), HAND, np.nan)
    assert average_accuracy(unmeasured) == average_accuracy(HAND)
    assert bwt(unmeasured) == bwt(HAND)
    assert np.isnan(fwt(unmeasured))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="shape"):
        accuracy([0.5, 0.6])
    with pytest.raises(InputError, match="pass `learned`"):
        bwt(np.zeros((9, 3)))
    with pytest.raises(InputError, match="one integer"):
        bwt(np.zeros((9, 3)), learned=[1, 2])
    with pytest.raises(InputError, match="one integer"):
        bwt(np.zeros((9, 3)), learned=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="rows from 1 to 8"):
        forgetting(np.zeros((9, 3)), learned=[0, 2, 3])
    with pytest.raises(InputError, match="rows from 0 to 8"):
        fwt(np.zeros((9, 3)), before=[0, 2, 9])
    with pytest.raises(InputError, match="seen before row 1"):
        average_accuracy(np.zeros((3, 2)), before=[1, 1])


def test_anytime() -> None:
    times, values = np.array([0.0, 10.0, 40.0]), np.array([[0.0, 0.5, 1.0], [0.3, 0.3, 0.3]])
    by_hand = (10 * 0.25 + 30 * 0.75) / 40
    np.testing.assert_allclose(anytime_accuracy(times, values), [by_hand, 0.3])
    assert np.isnan(anytime_accuracy(times, [0.1, np.nan, 0.2]))
    for bad in ([0.0], [0.0, 0.0, 1.0], [[0.0, 1.0, 2.0]]):
        with pytest.raises(InputError, match="times"):
            anytime_accuracy(bad, values)
    with pytest.raises(InputError, match="3 times"):
        anytime_accuracy(times, [0.1, 0.2])
