"""What the `adapters` library computes, run with the Python path of an environment that has it.

Reads nothing; writes weights of host and adapters, inputs, outputs, step times and peaks of memory to the path given.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

import adapters
import torch
from adapters import BnConfig
from adapters.composition import Fuse
from transformers import BertConfig, BertModel

CONFIG = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIG |= {"vocab_size": 1000, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BOTTLENECKS = {
    "pfeiffer": {"mh_adapter": False, "output_adapter": True, "reduction_factor": 16, "non_linearity": "relu"},
    "houlsby": {
        "mh_adapter": True, "output_adapter": True, "reduction_factor": 16, "non_linearity": "swish",
        "original_ln_before": False, "original_ln_after": True, "residual_before_ln": True,
        "adapter_residual_before_ln": False,
    },
}  # fmt: skip
PEAK = runpy.run_path(str(Path(__file__).with_name("_peak.py")))["peak_bytes"]


def main(path: str) -> None:
    """Every method, then fusion over two Pfeiffer adapters."""
    ids = torch.randint(5, 1000, (4, 64), generator=torch.Generator().manual_seed(0))
    found = {"ids": ids, "config": CONFIG}
    for name in ("pfeiffer", "houlsby", "fusion"):
        torch.manual_seed(0)
        model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False)
        host = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        adapters.init(model)
        knobs = BOTTLENECKS["houlsby" if name == "houlsby" else "pfeiffer"]
        if name != "houlsby":
            knobs = {**knobs, "original_ln_before": True, "original_ln_after": True}
        names = ["one", "two"] if name == "fusion" else ["one"]
        for one in names:
            model.add_adapter(one, config=BnConfig(**knobs))
        if name == "fusion":
            model.add_adapter_fusion(names)
            model.train_adapter_fusion(Fuse(*names))
            model.set_active_adapters(Fuse(*names))
        else:
            model.train_adapter("one")
            model.set_active_adapters("one")
        model.eval()
        own = {key: tensor for key, tensor in model.state_dict().items() if "adapter" in key}
        with torch.no_grad():
            for tensor in own.values():
                tensor.add_(0.02 * torch.randn(tensor.shape))
            output = model(ids).last_hidden_state
        seconds = []
        for _ in range(40):
            start = time.perf_counter()
            model(ids).last_hidden_state.pow(2).mean().backward()
            seconds.append(time.perf_counter() - start)
        peak = PEAK(lambda: lambda: model(ids).last_hidden_state.pow(2).mean().backward())  # noqa: B023
        found[name] = {"host": host, "adapters": own, "output": output, "seconds": sorted(seconds)[20], "peak": peak}
    torch.save(found, path)


if __name__ == "__main__":
    main(sys.argv[1])
