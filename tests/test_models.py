"""Networks, and any module as a function of its parameters."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_lib.engine.net import FunctionalNet, build
from cl_lib.errors import InputError
from cl_lib.models import MLP, ConvNet, CosineHead, SlimResNet18, make_head
from cl_lib.models.structure import has_batch_statistics, head_of

SHAPE, CLASSES = (3, 12, 10), 6
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


def test_a_module_of_the_user_is_copied_and_initialised_anew() -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(360, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    for p in own.parameters():
        nn.init.constant_(p, 7.0)
    own[2].running_mean.fill_(3.0)
    first, second = build(own, SHAPE, CLASSES, [0, 1])
    assert all((p == 7).all() for p in own.parameters())
    assert not torch.equal(first[1].weight, second[1].weight)
    assert (first[1].weight != 7).all()
    assert (first[2].weight == 1).all()
    assert (first[2].running_mean == 0).all()


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
        (lambda: MLP((4,), 3, hidden=(0,)), r"model\.hidden=\[0\]: each width must be a whole number, 1 or more"),
        (lambda: MLP((4,), 3, hidden=(2.5,)), r"model\.hidden"),
        (lambda: MLP((4,), 3, init="he"), r"model\.init='he': must be xavier or torch"),
        (lambda: MLP((4,), 3, head="big"), r"model\.head='big': must be one of linear, multi, cosine"),
        (lambda: ConvNet((4,), 3), r"model=convnet: needs images of shape \(C, H, W\), this stream has \(4,\)"),
        (lambda: ConvNet((1, 3, 9), 3), r"model\.channels=\[16, 32\]: halves 3x9 images too often"),
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
            r"answers with shape \(2, 5\) .* 6 classes, so \(2, 6\) is needed",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 6)), r"does not take inputs of shape \(N, 3, 12, 10\)"),
        (nn.Flatten(), r"Flatten has no trainable parameters"),
        (lambda shape, classes: "net", r"the factory made a str, not an nn\.Module"),
    ],
)
def test_a_model_that_does_not_fit_the_stream_is_refused(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(model, SHAPE, CLASSES, [0])
