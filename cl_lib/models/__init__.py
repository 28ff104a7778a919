"""Networks; any other ``nn.Module`` can be used as well."""

from cl_lib.models.convnet import ConvNet
from cl_lib.models.heads import CosineHead, make_head
from cl_lib.models.mlp import MLP
from cl_lib.models.pretrained import with_head
from cl_lib.models.resnet import SlimResNet18

__all__ = ["MLP", "ConvNet", "CosineHead", "SlimResNet18", "make_head", "with_head"]
