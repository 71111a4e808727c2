"""torchvision's names of the MobileNetV2 weights, turned into timm's `mobilenetv2_100`."""

import re
from typing import TypeVar

from assembler.errors import AssemblerError

Value = TypeVar("Value")

REPEATS = (1, 2, 3, 4, 3, 3, 1)
OUTER = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2"}
OUTER["classifier.1"] = "classifier"
FIRST = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
LATER = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}


def _modules() -> dict[str, str]:
    """timm's name of each torchvision module: block k of `features` is block i of stage s."""
    names = dict(OUTER)
    places = [(stage, index) for stage, count in enumerate(REPEATS) for index in range(count)]
    for block, (stage, index) in enumerate(places, start=1):
        for theirs, ours in (FIRST if block == 1 else LATER).items():
            names[f"features.{block}.conv.{theirs}"] = f"blocks.{stage}.{index}.{ours}"
    return names


def to_timm(state: dict[str, Value]) -> dict[str, Value]:
    """`state` under timm's names, in the same order; a state that has timm's names already is returned as it is.

    Raises AssemblerError if a name is not one of torchvision's MobileNetV2, or one of its modules is missing. The
    classifier may be missing.
    """
    if "conv_stem.weight" in state:
        return dict(state)
    modules, seen, renamed = _modules(), set(), {}
    for name, value in state.items():
        module, _, parameter = re.sub(r"^module\.", "", name).rpartition(".")
        if module not in modules:
            raise AssemblerError(f"'{name}' is not in torchvision's MobileNetV2. Give the weights of mobilenet_v2.")
        seen.add(module)
        renamed[f"{modules[module]}.{parameter}"] = value
    missing = [module for module in modules if module not in seen and module != "classifier.1"]
    if missing:
        raise AssemblerError(f"The weights lack '{missing[0]}' of torchvision's MobileNetV2. Give all of mobilenet_v2.")
    return renamed
