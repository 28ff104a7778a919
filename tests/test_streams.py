"""Streams: splits, permutations, rotations, online and blurry ones, against direct indexing and torchvision."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

import cl_lib
from cl_lib.datasets import Dataset, digits, from_arrays
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.errors import InputError
from cl_lib.streams import SeededStream, Stream, blurry, by_column, check_stream, online, permuted, rotated, split
from cl_lib.types import Experience

DATA = digits()
CPU = torch.device("cpu")


def images(n: int = 12, channels: int = 1, height: int = 9, width: int = 7, **options: Any) -> Dataset:
    """Small random images of two classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2 * n, channels, height, width)).astype(np.uint8)
    return from_arrays((x[:n], np.arange(n) % 2), (x[n:], np.arange(n) % 2), **options)


def seen(stream: Stream, task: int, index: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """What a learner is given for train samples of one task, in float64."""
    shared = upload(stream.data, stream.data.train, torch.float64, CPU)
    table = {k: v[0] for k, v in tables([stream.realise(seed)], torch.float64, CPU).items()}
    return gather(shared, table, index, torch.full_like(index, task), torch.float64)


def same(one: SeededStream, other: SeededStream) -> bool:
    parts = zip(one.experiences, other.experiences, strict=True)
    return all(torch.equal(getattr(a, k), getattr(b, k)) for a, b in parts for k in ("train", "task"))


def trained(real: SeededStream) -> list[tuple[int, int]]:
    return sorted((i, t) for e in real.experiences for i, t in zip(e.train.tolist(), e.task.tolist(), strict=True))


# ---------------------------------------------------------------------- split
@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
@pytest.mark.parametrize("order", ["natural", [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]])
def test_split_gives_each_experience_its_classes(scenario: Any, order: Any) -> None:
    stream = split(DATA, 5, scenario=scenario, class_order=order)
    real = stream.realise(3)
    classes = np.array(range(10) if order == "natural" else order).reshape(5, 2)
    assert len(stream.classes) == (2 if scenario == "domain" else 10)
    for e, (own, test) in enumerate(zip(real.experiences, real.tests, strict=True)):
        for part, index in ((DATA.train, own.train), (DATA.test, test)):
            assert index.tolist() == np.flatnonzero(np.isin(part.y.numpy(), classes[e])).tolist()
        assert own.task.tolist() == [e] * len(own.train)
        raw = DATA.train.y[own.train]
        labels = real.labels(raw, own.task).tolist()
        if scenario == "domain":
            assert labels == [classes[e].tolist().index(y) for y in raw.tolist()]
            assert real.classes[e].tolist() == [True, True]
        else:
            assert labels == raw.tolist()
            assert np.flatnonzero(real.classes[e]).tolist() == sorted(classes[e])


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [("class", ("all", "seen")), ("task", ("experience", "experience")), ("domain", ("all", "all"))],
)
def test_scenarios_have_their_answerable_classes(scenario: Any, expected: tuple[str, str]) -> None:
    stream = split(DATA, scenario=scenario)
    assert (stream.train_classes, stream.eval_classes) == expected
    other = split(DATA, scenario=scenario, train_classes="seen", eval_classes="all")
    assert (other.train_classes, other.eval_classes) == ("seen", "all")


def test_class_order_by_seed_is_repeatable_and_differs_between_seeds() -> None:
    orders = []
    for seed in (0, 1, 0):
        real = split(DATA, 10, class_order="seed").realise(seed)
        orders.append([int(row.nonzero()) for row in real.classes])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]


def test_natural_order_does_not_depend_on_the_seed() -> None:
    assert same(split(DATA, valid=0.3).realise(0), split(DATA, valid=0.3).realise(7))


@pytest.mark.parametrize("valid", [0.0, 0.1, 0.5])
def test_the_floor_of_each_class_is_held_out_the_same_for_all_seeds(valid: float) -> None:
    real, whole = split(DATA, valid=valid).realise(1), split(DATA).realise(1)
    for own, held, all_ in zip(real.experiences, real.valids, whole.experiences, strict=True):
        assert sorted([*own.train.tolist(), *held.tolist()]) == all_.train.tolist()
        assert own.train.tolist() == sorted(own.train.tolist())
        for label in DATA.train.y[all_.train].unique():
            n = int((DATA.train.y[all_.train] == label).sum())
            assert int((DATA.train.y[held] == label).sum()) == int(valid * n)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split(DATA, 3), r"stream\.experiences=3: must divide the number of classes, 10; choose one of 1, 2"),
        (lambda: split(DATA, 0), r"stream\.experiences=0"),
        (lambda: split(DATA, scenario="instance"), r"stream\.scenario='instance': must be one of class, task, domain"),
        (lambda: split(DATA, class_order="random"), r"stream\.class_order='random': must be natural, seed, or a list"),
        (lambda: split(DATA, class_order=[0, 1, 2]), r"stream\.class_order=.*: must contain each of 0 to 9 once"),
        (lambda: split(DATA, class_order=[0] * 10), r"must contain each of 0 to 9 once"),
        (lambda: split(DATA, valid=1.0).realise(), r"stream\.valid=1\.0: must be at least 0 and below 1"),
        (lambda: split(DATA, valid=-0.1).realise(), r"stream\.valid=-0\.1"),
        (
            lambda: split(DATA, eval_classes="some"),
            r"stream\.eval_classes='some': must be one of all, seen, experience",
        ),
        (lambda: permuted(DATA, 0).realise(), r"stream\.experiences=0: must be a whole number, 1 or more"),
        (lambda: permuted(DATA, 2, scenario="x"), r"stream\.scenario='x'"),
        (lambda: rotated(DATA, 2, angles=[0, 1, 2]), r"stream\.angles: 3 given for 2 experiences"),
        (lambda: rotated(from_arrays((torch.zeros(4, 5), torch.arange(4) % 2), 0.5)), r"needs images of shape"),
        (lambda: online(split(DATA), 0), r"stream\.chunk=0: must be a whole number, 1 or more"),
        (lambda: blurry(split(DATA), 1.1), r"stream\.blur=1\.1: must lie between 0 and 1"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_an_experience_without_samples_is_refused() -> None:
    x, y = torch.zeros(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    data = from_arrays((x, y), (x, y), classes=["a", "b", "c", "d"])
    with pytest.raises(InputError, match=r"experience 2 has no training samples"):
        split(data, 2).realise()


# ---------------------------------------------------------------------- permuted
def test_permuted_pixels_are_the_pixels_in_another_order() -> None:
    data, index = images(channels=3, mean=[1.0, 2.0, 3.0], std=[255.0, 100.0, 10.0]), torch.tensor([4, 0, 4, 11])
    stream = permuted(data, 3)
    transform = stream.realise(5).transform
    assert transform is not None
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (data.mean, data.std))
    for task in range(3):
        order = transform.pixel[task, :, 0]
        assert sorted(order.tolist()) == list(range(63))
        x, y = seen(stream, task, index, seed=5)
        flat = (data.train.x[index].double().flatten(2) - mean) / std
        assert torch.equal(x.flatten(2), flat[:, :, order])
        assert torch.equal(y, data.train.y[index])


def test_permutations_differ_by_experience_and_by_seed() -> None:
    def order(seed: int, by_seed: bool) -> Tensor:
        transform = permuted(DATA, 4, by_seed=by_seed).realise(seed).transform
        assert transform is not None
        return transform.pixel

    first = order(0, True)
    assert len(first.unique(dim=0)) == 4
    assert torch.equal(first, order(0, True))
    assert not torch.equal(first, order(1, True))
    assert torch.equal(order(0, False), order(1, False))


def test_permuted_vectors_are_permuted_too() -> None:
    data = from_arrays((torch.arange(20.0).reshape(4, 5), torch.arange(4) % 2), 0.5)
    stream = permuted(data, 2)
    x, _ = seen(stream, 1, torch.tensor([0, 1]))
    transform = stream.realise(0).transform
    assert transform is not None
    assert torch.equal(x, data.train.x[:2].double()[:, transform.pixel[1, :, 0]])


@pytest.mark.parametrize("make", [permuted, rotated])
def test_each_experience_holds_all_the_data(make: Any) -> None:
    real = make(DATA, 3, valid=0.1).realise(0)
    for e, (own, held) in enumerate(zip(real.experiences, real.valids, strict=True)):
        assert torch.equal(torch.cat([own.train, held]).sort().values, torch.arange(len(DATA.train)))
        assert own.task.tolist() == [e] * len(own.train)
    assert all(torch.equal(test, torch.arange(len(DATA.test))) for test in real.tests)


@pytest.mark.parametrize("make", [permuted, rotated])
@pytest.mark.parametrize("scenario", ["class", "task"])
def test_class_and_task_scenarios_give_each_experience_labels_of_its_own(make: Any, scenario: str) -> None:
    stream = make(DATA, 3, scenario=scenario)
    real, index = stream.realise(0), torch.arange(50)
    assert len(stream.classes) == len(set(stream.classes)) == 30
    for task in range(3):
        assert torch.equal(seen(stream, task, index)[1], DATA.train.y[index] + 10 * task)
        assert np.flatnonzero(real.classes[task]).tolist() == list(range(10 * task, 10 * task + 10))


# ---------------------------------------------------------------------- rotated
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_right_angles_are_exact(turns: int, side: int) -> None:
    data = images(channels=2, height=side, width=side, std=1.0)
    x, _ = seen(rotated(data, 2, angles=[5, 90 * turns]), 1, torch.arange(6))
    expected = np.rot90(data.train.x[:6].numpy(), turns, (2, 3)).astype(float)
    assert np.abs(x.numpy() - expected).max() == 0


@pytest.mark.parametrize("angle", [10.0, 33.3, 45.0, 120.0, -20.0])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 15), (14, 19)])
def test_rotation_equals_torchvision_inside_the_image(angle: float, height: int, width: int) -> None:
    data = images(height=height, width=width, std=1.0)
    x, _ = seen(rotated(data, 1, angles=[angle]), 0, torch.arange(4))
    expected = rotate(data.train.x[:4].double(), angle, InterpolationMode.BILINEAR)
    row, column = np.mgrid[:height, :width]
    radius = np.hypot(row - (height - 1) / 2, column - (width - 1) / 2)
    inside = torch.from_numpy(radius < min(height, width) / 2 - 1)
    assert inside.sum() > 50
    torch.testing.assert_close(x[..., inside], expected[..., inside], rtol=0, atol=2e-5)  # of 255


def test_rotation_fills_the_corners_with_zero() -> None:
    data = from_arrays((torch.ones(4, 1, 9, 9), torch.arange(4) % 2), 0.5)
    x, _ = seen(rotated(data, 1, angles=[45]), 0, torch.tensor([0]))
    assert x[0, 0, 4, 4] == 1
    assert x[0, 0, 0, 0] == x[0, 0, 8, 8] == 0


def test_angles_are_drawn_from_the_seed() -> None:
    def weights(seed: int, by_seed: bool) -> Tensor:
        transform = rotated(DATA, 3, by_seed=by_seed).realise(seed).transform
        assert transform is not None
        assert transform.weight is not None
        return transform.weight

    assert not torch.equal(weights(0, True), weights(1, True))
    assert torch.equal(weights(0, True), weights(0, True))
    assert torch.equal(weights(0, False), weights(1, False))
    assert len(weights(0, True).unique(dim=0)) == 3


# ---------------------------------------------------------------------- online
@pytest.mark.parametrize("chunk", [1000, 100, 7])
def test_online_chunks_lose_nothing_and_never_cross_a_boundary(chunk: int) -> None:
    parent = split(DATA, valid=0.1)
    stream, whole = online(parent, chunk), parent.realise(2)
    real = stream.realise(2)
    sizes = [n for e in whole.experiences for n in torch.arange(len(e.train)).split(chunk)]
    assert [len(e.train) for e in real.experiences] == [len(n) for n in sizes]
    assert stream.length == len(real.experiences)
    assert trained(real) == trained(whole)
    assert all(len(e.task.unique()) == 1 for e in real.experiences)
    assert all(torch.equal(a, b) for a, b in zip(real.valids, whole.valids, strict=True))


def test_online_streams_ask_the_test_sets_of_the_parent() -> None:
    parent = split(DATA)
    stream = online(parent, 100)
    assert stream.columns == parent.columns
    assert all(torch.equal(a, b) for a, b in zip(stream.realise(0).tests, parent.realise(0).tests, strict=True))


def test_online_chunks_are_shuffled_by_seed() -> None:
    stream = online(split(DATA), 100)
    assert same(stream.realise(1), stream.realise(1))
    assert not same(stream.realise(0), stream.realise(1))


# ---------------------------------------------------------------------- blurry
@pytest.mark.parametrize("blur", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("parent", [split(DATA), permuted(DATA, 3)], ids=lambda s: s.name)
def test_blurring_keeps_sizes_and_loses_nothing(parent: Stream, blur: float) -> None:
    real, whole = blurry(parent, blur).realise(4), parent.realise(4)
    assert [len(e.train) for e in real.experiences] == [len(e.train) for e in whole.experiences]
    assert trained(real) == trained(whole)
    moved = sum(int((e.task != number).sum()) for number, e in enumerate(real.experiences))
    pool = sum(int(blur * len(e.train)) for e in whole.experiences)
    assert moved <= pool
    # a pooled sample comes home by chance once in as many experiences as there are
    assert moved == pytest.approx(pool * (1 - 1 / len(real.experiences)), rel=0.1)


def test_blur_0_is_the_parent() -> None:
    assert same(blurry(split(DATA, valid=0.1), 0.0).realise(3), split(DATA, valid=0.1).realise(3))


def test_blurred_samples_keep_their_own_transform() -> None:
    parent = permuted(images(), 2)
    stream = blurry(parent, 0.5)
    own = stream.realise(1).experiences[0]
    shared = upload(stream.data, stream.data.train, torch.float64, CPU)
    table = {k: v[0] for k, v in tables([stream.realise(1)], torch.float64, CPU).items()}
    x, _ = gather(shared, table, own.train, own.task, torch.float64)
    assert len(own.task.unique()) == 2
    for i, (index, task) in enumerate(zip(own.train, own.task, strict=True)):
        assert torch.equal(x[i], seen(parent, int(task), index[None], seed=1)[0][0])


def test_streams_stack_online_on_blurry() -> None:
    stream = online(blurry(split(DATA), 0.3), 50)
    assert trained(stream.realise(0)) == trained(split(DATA).realise(0))
    assert stream.options["parent"]["parent"]["kind"] == "split"


# ---------------------------------------------------------------------- printing and checking
def test_a_printed_stream_says_what_is_in_it() -> None:
    text = str(online(split(DATA, valid=0.1), 20)).splitlines()
    assert text[0].startswith("online_split_digits: class-incremental, 64 experiences, 10 classes, digits (1, 8, 8)")
    assert text[1].split() == ["experience", "classes", "train", "valid", "test", "set", "test"]
    assert text[2].split() == ["1", "0,", "1", "20", "26", "experience", "1", "90"]
    assert text[-1].split() == ["…", "44", "more"]
    assert str(permuted(DATA, 2)).splitlines()[2].split()[:8] == ["1", "0,", "1,", "2,", "3,", "4,", "5,", "…"]


def test_describe_is_json_and_carries_the_options() -> None:
    described = rotated(DATA, 2, angles=[0, 90]).describe()
    assert described["options"] == {"kind": "rotated", "angles": [0.0, 90.0], "by_seed": True, "valid": 0.0}
    assert described["data_hash"] == DATA.fingerprint()
    assert described["columns"] == ["rotation 1 (0°)", "rotation 2 (90°)"]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_check_stream_passes_the_streams_of_the_library(scenario: Any) -> None:
    parent = split(DATA, scenario=scenario, class_order="seed", valid=0.1)
    made = (parent, permuted(DATA, 3, scenario=scenario), rotated(DATA, 2, valid=0.2), online(parent), blurry(parent))
    for stream in made:
        assert check_stream(stream, seed=3).problems == ()


def broken(change: Any) -> Stream:
    parent = split(DATA, valid=0.1)

    def make(seed: int) -> SeededStream:
        real = parent.realise(seed)
        return real._replace(**change(list(real.experiences), list(real.tests), list(real.valids)))

    return replace(parent, make=make)


def changed(e: Experience, index: Tensor) -> Experience:
    return Experience(index, e.task[:1].expand(len(index)), e.column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda es, ts, vs: {"experiences": [changed(es[0], es[0].train[3:]), *es[1:]]}, "3 training samples lost"),
        (
            lambda es, ts, vs: {"experiences": [changed(es[0], torch.cat([es[0].train, es[0].train[:2]])), *es[1:]]},
            "2 training samples doubled",
        ),
        (
            lambda es, ts, vs: {"experiences": [changed(es[0], torch.cat([es[0].train, vs[0][:4]])), *es[1:]]},
            "4 samples leaked between train and validation",
        ),
        (
            lambda es, ts, vs: {"experiences": [changed(es[0], torch.cat([es[0].train, es[2].train[:4]])), *es[1:]]},
            "4 training samples where they do not belong",
        ),
        (lambda es, ts, vs: {"tests": [ts[1], ts[0], *ts[2:]]}, "test samples lost"),
        (lambda es, ts, vs: {"tests": [ts[0][5:], *ts[1:]]}, "5 test samples lost"),
        (lambda es, ts, vs: {"tests": [torch.cat([ts[0], ts[0][:1]]), *ts[1:]]}, "1 test samples doubled"),
        (
            lambda es, ts, vs: {"tests": [torch.cat([ts[0], ts[2][:2]]), *ts[1:]]},
            "2 test samples where they do not belong",
        ),
        (lambda es, ts, vs: {"valids": [vs[0][3:], *vs[1:]]}, "3 training samples lost"),
        (lambda es, ts, vs: {"valids": [torch.cat([vs[0], vs[0][:2]]), *vs[1:]]}, "2 training samples doubled"),
    ],
)
def test_check_stream_finds_what_is_lost_doubled_or_leaked(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_stream(broken(change))


def test_check_stream_finds_samples_lost_from_one_experience_of_many() -> None:
    parent = permuted(DATA, 3)

    def make(seed: int) -> SeededStream:
        real = parent.realise(seed)
        es = list(real.experiences)
        return real._replace(experiences=(es[0], changed(es[1], es[1].train[100:]), es[2]))

    with pytest.raises(InputError, match="100 training samples lost"):
        check_stream(replace(parent, make=make))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda es, ts: {"experiences": [changed(es[0], es[0].train.repeat(2)), *es[1:]]}, "training samples doubled"),
        (lambda es, ts: {"tests": [ts[0], torch.cat([ts[1], ts[1][:2]]), ts[2]]}, "2 test samples doubled"),
        (lambda es, ts: {"tests": [ts[0], ts[1], ts[2][7:]]}, "7 test samples lost"),
        (lambda es, ts: {"classes": torch.zeros(3, 10, dtype=torch.bool)}, "test samples where they do not belong"),
    ],
)
def test_check_stream_looks_at_each_column_of_a_stream_that_repeats_samples(change: Any, message: str) -> None:
    parent = permuted(DATA, 3)

    def make(seed: int) -> SeededStream:
        real = parent.realise(seed)
        return real._replace(**change(list(real.experiences), list(real.tests)))

    with pytest.raises(InputError, match=message):
        check_stream(replace(parent, make=make))


def test_check_stream_lists_all_problems_at_once() -> None:
    def change(es: Any, ts: Any, vs: Any) -> Any:
        return {"experiences": [changed(es[0], es[0].train[3:]), *es[1:]], "tests": [ts[0][5:], *ts[1:]]}

    with pytest.raises(InputError, match=r"seed 0\): 3 training samples lost; 5 test samples lost"):
        check_stream(broken(change))


def test_check_stream_counts_exact_duplicates() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 3)), np.arange(40) % 2
    test, test_y = rng.random((10, 3)), np.arange(10) % 2
    test[:3] = x[0]
    stream = split(from_arrays((x, y), (test, test_y)), 2, valid=0.25)
    valid = torch.cat(stream.realise(0).valids).tolist()
    first = next(i for i in range(40) if i not in valid)
    test[:3], x[valid[:2]] = x[first], x[first]
    report = check_stream(split(from_arrays((x, y), (test, test_y)), 2, valid=0.25))
    assert (report.train_test_duplicates, report.train_valid_duplicates) == (3, 2)
    assert (report.train, report.valid, report.test) == (30, 10, 10)
    assert "3 test samples equal a train sample" in str(report)


# ---------------------------------------------------------------------- one's own data
def sites() -> Dataset:
    rng = np.random.default_rng(0)
    site = np.array(["b", "a", "c"])[np.arange(90) % 3]
    x = rng.normal(size=(90, 4)) + (site == "a")[:, None]
    return from_arrays((x, np.arange(90) % 2), 0.4, columns={"site": site})


def test_by_column_gives_each_value_an_experience_and_a_test_set() -> None:
    data = sites()
    stream = by_column(data, "site", order=["c", "a", "b"], valid=0.2)
    real = stream.realise(0)
    for e, value in enumerate("cab"):
        for part, index in (
            (data.train, real.experiences[e].train),
            (data.train, real.valids[e]),
            (data.test, real.tests[e]),
        ):
            own = part.columns["site"]
            assert {own.labels[i] for i in own.codes[index].tolist()} == {value}
    assert check_stream(stream).problems == ()
    record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)
    assert np.array(record.accuracy_matrix).shape == (4, 3)
    assert record.slices["site"]["labels"] == list(data.test.columns["site"].labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: by_column(sites(), "sight"), r"stream\.column='sight': arrays has no such column; did you mean site"),
        (
            lambda: by_column(sites(), "site", order=["a", "d"]),
            r"stream\.order: site has no value 'd'",
        ),
        (lambda: by_column(sites(), "site", order=["a", "a"]), r"must contain each value at most once"),
    ],
)
def test_by_column_names_what_is_not_there(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
