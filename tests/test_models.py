"""Networks, and any module as a function of its parameters."""

import threading
from typing import Any

import pytest
import torch
from running import equals_hand_loop
from torch import Tensor, nn

from cl_lib import datasets, iter_run, strategies, streams
from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.weights import build
from cl_lib.errors import InputError
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP, ConvNet, CosineHead, SlimResNet18, make_head
from cl_lib.models.structure import has_batch_statistics, head_of
from cl_lib.noise import SeededRandom

SHAPE, CLASSES = (3, 12, 10), 6
DIGITS = streams.split(datasets.digits())
FACTORIES: dict[str, Any] = {
    "mlp": MLP.factory(hidden=(16, 12)),
    "mlp without hidden layers": MLP.factory(hidden=()),
    "mlp cosine": MLP.factory(hidden=(16,), head="cosine"),
    "convnet": ConvNet.factory(channels=(4, 6), hidden=14),
    "resnet group": SlimResNet18.factory(width=4),
    "resnet batch": SlimResNet18.factory(width=5, norm="batch"),
    "resnet cosine": SlimResNet18.factory(width=4, head="cosine"),
}


def plain(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(shape[0], 2, 3), nn.Flatten(), nn.Linear(160, 9), nn.Tanh(), nn.Linear(9, classes))


MODELS = {**FACTORIES, "sequential": plain}


def inputs(n: int = 5) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def net_of(module: nn.Module, **options: Any) -> tuple[FunctionalNet, dict[str, Tensor]]:
    return FunctionalNet(module, dict(module.named_buffers()), **options), dict(module.named_parameters())


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_features_are_those_of_the_module(name: str) -> None:
    (module,) = build(MODELS[name], SHAPE, CLASSES, [0])
    net, params = net_of(module)
    out = net(params, inputs(), torch.zeros(5, dtype=torch.long))
    module.eval()
    assert out.logits.shape == (5, CLASSES)
    assert torch.equal(out.logits, module(inputs()))
    body = module[:-1] if isinstance(module, nn.Sequential) else module.body
    assert torch.equal(out.features, body(inputs()))
    head = head_of(module)
    assert head is not None
    assert torch.equal(head(out.features), out.raw)


@pytest.mark.parametrize("name", MODELS)
def test_seeds_give_different_repeatable_networks_whatever_their_number(name: str) -> None:
    first, second, third = build(MODELS[name], SHAPE, CLASSES, [4, 1, 7])
    (alone,) = build(MODELS[name], SHAPE, CLASSES, [1])
    for key, value in second.state_dict().items():
        assert torch.equal(value, alone.state_dict()[key])
    weights = [next(p for p in m.parameters() if p.ndim > 1) for m in (first, second, third)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build(MODELS["mlp"], SHAPE, CLASSES, [0, 1])
    assert torch.equal(torch.rand(2), expected)


def test_a_module_of_the_user_is_copied_and_taken_as_it_is() -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(360, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    own[1].requires_grad_(False)
    own[2].running_mean.fill_(3.0)
    before = {k: v.clone() for k, v in own.state_dict().items()}
    for module in build(own, SHAPE, CLASSES, [0, 1]):
        assert module is not own
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key])
        assert [p.requires_grad for p in module.parameters()] == [p.requires_grad for p in own.parameters()]


def test_weights_follow_the_seed_whatever_other_threads_draw() -> None:
    expected = [build(MODELS[name], SHAPE, CLASSES, [3])[0].state_dict() for name in ("mlp", "resnet batch")]
    torch.manual_seed(3)
    plain_mlp = MODELS["mlp"](SHAPE, CLASSES).state_dict()
    assert all(torch.equal(v, plain_mlp[k]) for k, v in expected[0].items())  # as under torch.manual_seed alone
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            torch.rand(100)

    other = threading.Thread(target=draw)
    other.start()
    try:
        for _ in range(10):
            for name, weights in zip(("mlp", "resnet batch"), expected, strict=True):
                again = build(MODELS[name], SHAPE, CLASSES, [3])[0].state_dict()
                assert all(torch.equal(v, weights[k]) for k, v in again.items())
    finally:
        stop.set()
        other.join()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3, 2),
        lambda: torch.randn(5),
        lambda: torch.randint(9, (6,)),
        lambda: torch.randperm(8),
        lambda: torch.rand_like(torch.ones(4)),
        lambda: torch.randn_like(torch.ones(4)),
        lambda: torch.bernoulli(torch.full((20,), 0.4)),
        lambda: torch.multinomial(torch.ones(7), 5),
        lambda: torch.normal(0.0, torch.ones(6)),
        lambda: torch.empty(6).exponential_(),
        lambda: torch.poisson(torch.full((9,), 3.0)),
        lambda: nn.init.orthogonal_(torch.empty(4, 4)),
        lambda: nn.init.trunc_normal_(torch.empty(9)),
        lambda: nn.functional.dropout(torch.ones(30), 0.5),
    ],
)
def test_seeded_random_is_torch_s_own_sequence(draw: Any) -> None:
    torch.manual_seed(11)
    expected = draw()
    torch.manual_seed(12)
    state = torch.get_rng_state()
    with SeededRandom(11):
        got = draw()
    assert torch.equal(got, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_lazy_layers_of_a_factory_follow_the_seed() -> None:
    def lazy(shape: Any, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.LazyLinear(classes))

    torch.manual_seed(1)
    first = build(lazy, SHAPE, CLASSES, [4, 5])
    torch.manual_seed(2)
    again = build(lazy, SHAPE, CLASSES, [4, 5])
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert not torch.equal(first[0][1].weight, first[1][1].weight)
    with pytest.raises(InputError, match=r"model: Sequential has lazy parameters; run it on a sample first"):
        build(lazy(SHAPE, CLASSES), SHAPE, CLASSES, [0])


def test_a_factory_that_seeds_torch_is_told() -> None:
    def seeding(shape: Any, classes: int) -> nn.Module:
        torch.manual_seed(0)
        return plain(shape, classes)

    torch.manual_seed(77)
    with pytest.warns(UserWarning, match=r"calls torch\.manual_seed, but its weights are drawn from the run's seed"):
        (module,) = build(seeding, SHAPE, CLASSES, [4])
    assert torch.equal(module[0].weight, build(plain, SHAPE, CLASSES, [4])[0][0].weight)


def test_frozen_parts_stay_in_eval_mode() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).requires_grad_(False)
    backbone[2].running_mean.fill_(0.3)
    own = nn.Sequential(backbone, nn.Linear(8, 10))
    assert not has_batch_statistics(own)
    session = Session(Job(DIGITS, strategies.Finetune(), model=own, epochs=1, device="cpu"))
    for _ in session:
        pass
    assert session.learner is not None
    buffers = session.learner.tree["state"]["buffers"]
    assert (buffers["0.2.running_mean"] == 0.3).all()
    assert torch.equal(buffers["0.1.weight"][0], backbone[1].weight)


# ---------------------------------------------------------------------- what is found out by running it
class Attending(nn.Module):
    """Its classifier is defined first and called last."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(12, classes)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.unused = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT.unflatten(1, (10, 12)).mean(-1)
        return self.classifier(self.attention(tokens, tokens, tokens)[0].mean(1))


class Scaled(nn.Module):
    """No layer gives its answer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(360, 9), nn.Linear(9, classes)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.second(self.first(x.flatten(1)).relu())


def convolutional(pool: bool) -> nn.Module:
    layers = [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    head = nn.Conv2d(5, CLASSES, 1)
    return nn.Sequential(*layers, head, nn.Flatten()) if pool else nn.Sequential(head_first(), nn.Flatten())


def head_first() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.AdaptiveAvgPool2d(1))


def test_the_head_is_what_was_called_last_and_gives_the_answer() -> None:
    (module,) = build(lambda shape, classes: Attending(classes), SHAPE, CLASSES, [0])
    assert head_of(module) is module.classifier
    net, params = net_of(module)
    assert net(params, inputs(), torch.zeros(5, dtype=torch.long)).features.shape == (5, 12)
    (module,) = build(lambda shape, classes: convolutional(True), SHAPE, CLASSES, [0])
    assert head_of(module) is module[3]
    net, params = net_of(module)
    assert net(params, inputs(), torch.zeros(5, dtype=torch.long)).features.shape == (5, 5)
    (module,) = build(
        nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(360, 6))), SHAPE, 6, [0]
    )
    assert head_of(module) is module[1]


@pytest.mark.parametrize("make", [lambda s, c: Scaled(c), lambda s, c: convolutional(False)])
def test_where_no_head_can_be_told_features_are_refused_and_all_else_works(make: Any) -> None:
    (module,) = build(make, SHAPE, CLASSES, [0])
    assert head_of(module) is None
    net, params = net_of(module)
    out = net(params, inputs(), torch.zeros(5, dtype=torch.long))
    assert torch.equal(out.raw, module.eval()(inputs()))
    uses: list[Any] = [
        lambda z: z.mean(0),
        lambda z: z - torch.ones(2),
        lambda z: torch.ones(2) @ z,
        lambda z: torch.cat([z, z]),
        lambda z: z[0],
        lambda z: nn.functional.normalize(z, dim=-1),
    ]
    for use in uses:
        with pytest.raises(InputError, match=r"model: \w+ has no identifiable head.*self\.head = "):
            use(out.features)


@pytest.mark.parametrize(
    "strategy", [strategies.NCM(), strategies.ICaRL(), strategies.SLDA(), strategies.CoPE(), strategies.KNN()]
)
def test_strategies_that_need_features_refuse_such_a_model_before_training(strategy: Any) -> None:
    rows = []
    with pytest.raises(InputError, match="no identifiable head"):
        rows.extend(iter_run(DIGITS, strategy, model=lambda s, c: Own(c), epochs=1, device="cpu"))
    assert all(row.step == 0 for row in rows)


class Own(nn.Module):
    """A head written by hand."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(64, 9), nn.Parameter(torch.randn(classes, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.flatten(1)).relu() @ self.weight.mT


class Standardised(nn.Module):
    """Batch statistics by hand."""

    def __init__(self, classes: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.head = nn.Linear(64, 9), nn.Linear(9, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x.flatten(1))
        if self.how == "functional":
            z = nn.functional.batch_norm(z, None, None, training=True)
        elif self.training:
            z = z - z.mean(0)
        return self.head(z.relu())


@pytest.mark.parametrize("how", ["functional", "mean"])
def test_batch_statistics_by_hand_see_no_padding(how: str) -> None:
    """Batches of 13 leave short last ones: a loop over the same planned batches must give the same parameters."""
    model = lambda shape, classes: Standardised(classes, how)
    options = {"stream": DIGITS, "model": model, "batch_size": 13, "epochs": 1}
    loss = lambda net, batch, _: nn.functional.cross_entropy(net.train()(batch[0]), batch[1])
    equals_hand_loop(strategies.Finetune(), loss, **options)


def test_a_softmax_at_the_end_is_refused() -> None:
    with pytest.raises(InputError, match=r"returns probabilities .* takes logits; remove the softmax"):
        build(nn.Sequential(nn.Flatten(), nn.Linear(360, CLASSES), nn.Softmax(-1)), SHAPE, CLASSES, [0])
    build(nn.Sequential(nn.Flatten(), nn.Linear(360, CLASSES), nn.LogSoftmax(-1)), SHAPE, CLASSES, [0])  # harmless


# ---------------------------------------------------------------------- the functional net
def test_a_mask_hides_classes_by_task_with_a_finite_number() -> None:
    (module,) = build(MODELS["mlp"], SHAPE, CLASSES, [0])
    mask = torch.tensor([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    net, params = net_of(module, mask=mask)
    out = net(params, inputs(4), torch.tensor([0, 1, 1, 0]))
    allowed = mask[torch.tensor([0, 1, 1, 0])]
    assert torch.equal(out.logits[allowed], out.raw[allowed])
    assert (out.logits[~allowed] < -1e8).all()
    assert torch.isfinite(out.logits).all()
    assert torch.isfinite(out.raw[~allowed]).all()


def test_training_statistics_are_carried_and_nothing_is_changed_in_place() -> None:
    (module,) = build(MODELS["resnet batch"], SHAPE, CLASSES, [0])
    before = {k: v.clone() for k, v in module.state_dict().items()}
    net, params = net_of(module, training=True)
    own = net.buffers
    out = net(params, inputs(), torch.zeros(5, dtype=torch.long))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in own.items())
    module.train()
    assert torch.equal(out.raw, module(inputs()))
    for key, value in module.named_buffers():
        assert torch.equal(net.buffers[key], value)
        assert not torch.equal(value, before[key])


def test_given_buffers_are_used_and_the_nets_own_left_alone() -> None:
    (module,) = build(MODELS["resnet batch"], SHAPE, CLASSES, [0])
    net, params = net_of(module, training=True)
    own = net.buffers
    net(params, inputs(), torch.zeros(5, dtype=torch.long), buffers={k: v.clone() for k, v in own.items()})
    assert net.buffers is own
    net(params, inputs(), torch.zeros(5, dtype=torch.long), train=False)
    assert net.buffers is own


def test_batch_statistics_are_noticed() -> None:
    assert has_batch_statistics(SlimResNet18(SHAPE, CLASSES, width=4, norm="batch"))
    assert not has_batch_statistics(SlimResNet18(SHAPE, CLASSES, width=4, norm="group"))


# ---------------------------------------------------------------------- heads and initialisation
def test_cosine_head_is_the_scaled_cosine() -> None:
    head = CosineHead(5, 3, scale=4.0)
    z = torch.randn(7, 5)
    expected = 4 * torch.cosine_similarity(z[:, None], head.weight[None], -1)
    torch.testing.assert_close(head(z), expected)
    assert head.scale.requires_grad
    torch.testing.assert_close(head(3 * z), head(z))


def test_xavier_is_glorot_uniform_with_zero_biases() -> None:
    for layer in MLP((40,), 10, hidden=(200,)).modules():
        if isinstance(layer, nn.Linear):
            limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit
            assert (layer.bias == 0).all()
    assert (MLP((40,), 10, init="torch").head.bias != 0).any()


@pytest.mark.parametrize(("size", "expected"), [((1, 8, 8), (4, 4)), ((3, 12, 10), (6, 5)), ((1, 9, 9), (4, 4))])
def test_convnet_halves_height_and_width(size: Any, expected: tuple[int, int]) -> None:
    net = ConvNet(size, 4, channels=(5,), hidden=7)
    assert net.body[-2].in_features == 5 * expected[0] * expected[1]
    assert net(torch.zeros(2, *size)).shape == (2, 4)


def test_slim_resnet_is_resnet18_with_twenty_channels() -> None:
    net = SlimResNet18((3, 32, 32), 100, norm="batch")
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 16 + 3  # stem, eight blocks of two, three shortcuts
    assert sorted({c.out_channels for c in convolutions}) == [20, 40, 80, 160]
    assert net.head.in_features == 160
    assert sum(p.numel() for p in net.parameters()) == 1_109_240


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((4,), 3, hidden=(0,)), r"model\.hidden\[0\]=0: must be a whole number, 1 or more"),
        (lambda: MLP((4,), 3, hidden=(2.5,)), r"model\.hidden"),
        (lambda: MLP((4,), 3, init="he"), r"model\.init='he': must be one of xavier, torch"),
        (lambda: MLP((4,), 3, head="big"), r"model\.head='big': must be one of linear, multi, cosine"),
        (lambda: ConvNet((4,), 3), r"model=convnet: needs images of shape \(C, H, W\), this stream has \(4,\)"),
        (lambda: ConvNet((1, 3, 9), 3), r"model\.channels=\[16, 32\]: must be fewer, each halves the 3x9 images"),
        (lambda: SlimResNet18((4,), 3), r"model=slim_resnet18: needs images"),
        (lambda: SlimResNet18(SHAPE, 3, width=6), r"model\.width=6: must be .* a multiple of 4 with norm=group"),
        (lambda: SlimResNet18(SHAPE, 3, norm="layer"), r"model\.norm='layer': must be group or batch"),
        (lambda: make_head("x", 1, 2), r"model\.head='x'"),
    ],
)
def test_models_name_what_cannot_work(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(360, 5)),
            r"returns shape \(2, 5\) .* 6 classes, so \(2, 6\) is needed",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 6)), r"does not take inputs of shape \(N, 3, 12, 10\)"),
        (nn.Flatten(), r"Flatten has no trainable parameters"),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(360, momentum=None), nn.Linear(360, 6)),
            r"model\.1\.momentum=None: .* set a number",
        ),
        (lambda shape, classes: undefined, r"model: cannot be built .*: name 'undefined' is not defined"),  # noqa: F821
        (lambda shape, classes: "net", r"the factory made a str, not an nn\.Module"),
    ],
)
def test_a_model_that_does_not_fit_the_stream_is_refused(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(model, SHAPE, CLASSES, [0])
