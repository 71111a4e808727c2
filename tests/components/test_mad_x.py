"""MAD-X: an invertible adapter, languages that are swapped, and a task that stays."""

import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

from assembler.adapters.book import adapters_of
from components.adapters._invertible import Coupling
from components.adapters.invertible import Invertible
from components.adapters.pfeiffer import Pfeiffer
from tests.conformance.hosts import HOSTS, host_of


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_inverse_gives_back_what_went_in(half, seed):
    torch.manual_seed(seed)
    coupling, value = Coupling(2 * half, 2, "relu", "bert"), torch.randn(3, 2 * half)
    with torch.no_grad():
        torch.testing.assert_close(coupling.inverse(coupling(value)), value, rtol=1e-5, atol=1e-5)


def test_languages_are_swapped_under_a_task_that_stays():
    host, case = host_of("llama"), HOSTS["llama"]
    for seed, name in enumerate(("english", "basque")):
        Pfeiffer(host="h", reduction=2).attach(host, name, seed)
        Invertible(host="h").attach(host, f"{name}_words", seed + 10)
    Pfeiffer(host="h", reduction=8).attach(host, "task", 5)
    book = adapters_of(host)
    task = {key: tensor.clone() for key, tensor in book.modules["task"].state_dict().items()}
    outputs = {}
    for language in ("english", "basque"):
        book.activate(f"stack({language}_words, {language}, task)")
        with torch.no_grad():
            outputs[language] = case.run(host)
    assert not torch.equal(outputs["english"], outputs["basque"])
    assert all(torch.equal(tensor, task[key]) for key, tensor in book.modules["task"].state_dict().items())
    book.activate("stack(english_words, english, task)")
    with torch.no_grad():
        assert torch.equal(case.run(host), outputs["english"])


def test_a_language_and_a_task_have_the_weights_of_the_paper():
    sizes = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}
    with torch.device("meta"):
        host = tf.XLMRobertaModel(tf.XLMRobertaConfig(**sizes))
    for name, part in {
        "words": Invertible(host="h"),
        "language": Pfeiffer(host="h", reduction=2),
        "task": Pfeiffer(host="h", reduction=16),
    }.items():
        part.attach(host, name, 0)
    parameters = dict(host.adapters.named_parameters())
    weights = sum(p.numel() for key, p in parameters.items() if key.endswith("weight"))
    assert weights == 8_257_536  # the paper's 8.25M leaves the biases out
    assert sum(p.numel() for p in parameters.values()) == 8_282_304
