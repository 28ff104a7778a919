"""Continual-learning strategies, one file per algorithm."""

from cl_lib.strategies.agem import AGEM
from cl_lib.strategies.bic import BiC
from cl_lib.strategies.cls_er import CLSER
from cl_lib.strategies.continual_backprop import ContinualBackprop
from cl_lib.strategies.cope import CoPE
from cl_lib.strategies.cumulative import Cumulative
from cl_lib.strategies.der import DER
from cl_lib.strategies.derpp import DERpp
from cl_lib.strategies.er import ER
from cl_lib.strategies.er_ace import ERACE
from cl_lib.strategies.er_compressed import CompressedER
from cl_lib.strategies.er_tricks import ERTricks
from cl_lib.strategies.ewc import EWC
from cl_lib.strategies.finetune import Finetune
from cl_lib.strategies.from_scratch import FromScratch
from cl_lib.strategies.fromp import FROMP
from cl_lib.strategies.frozen import Frozen
from cl_lib.strategies.gdumb import GDumb
from cl_lib.strategies.gem import GEM
from cl_lib.strategies.generative_replay import GenerativeReplay
from cl_lib.strategies.gpm import GPM
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.gss import GSS
from cl_lib.strategies.hopfield import Hopfield
from cl_lib.strategies.icarl import ICaRL
from cl_lib.strategies.joint import Joint
from cl_lib.strategies.key_value import KeyValue
from cl_lib.strategies.knn import KNN
from cl_lib.strategies.kronecker_laplace import KroneckerLaplace
from cl_lib.strategies.l2_init import L2Init
from cl_lib.strategies.latent_replay import LatentReplay
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.lwf import LwF
from cl_lib.strategies.mas import MAS
from cl_lib.strategies.mbpa import MbPA
from cl_lib.strategies.mir import MIR
from cl_lib.strategies.ncm import NCM
from cl_lib.strategies.ogd import OGD
from cl_lib.strategies.random_guess import RandomGuess
from cl_lib.strategies.ranpac import RanPAC
from cl_lib.strategies.rar import RAR
from cl_lib.strategies.redo import ReDo
from cl_lib.strategies.rwalk import RWalk
from cl_lib.strategies.scr import SCR
from cl_lib.strategies.shrink_perturb import ShrinkPerturb
from cl_lib.strategies.si import SI
from cl_lib.strategies.slda import SLDA
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Gradient, Net, Phase, join

__all__ = [
    "AGEM",
    "CLSER",
    "DER",
    "ER",
    "ERACE",
    "EWC",
    "FROMP",
    "GEM",
    "GPM",
    "GSS",
    "KNN",
    "MAS",
    "MIR",
    "NCM",
    "OGD",
    "RAR",
    "SCR",
    "SI",
    "SLDA",
    "BiC",
    "CoPE",
    "CompressedER",
    "ContinualBackprop",
    "Cumulative",
    "DERpp",
    "ERTricks",
    "Finetune",
    "FromScratch",
    "Frozen",
    "GDumb",
    "GenerativeReplay",
    "Gradient",
    "Hopfield",
    "ICaRL",
    "Joint",
    "KeyValue",
    "KroneckerLaplace",
    "L2Init",
    "LatentReplay",
    "LwF",
    "MbPA",
    "Net",
    "Phase",
    "RWalk",
    "RanPAC",
    "RandomGuess",
    "ReDo",
    "ShrinkPerturb",
    "Strategy",
    "cross_entropy",
    "gradient_of",
    "join",
    "weighted_mean",
]
