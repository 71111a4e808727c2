"""X-LoRA: what scalings do, and that the head learns which adapter a token needs."""

import torch
from transformers import DynamicCache

from assembler.adapters.book import adapters_of
from assembler.caching import cache_argument
from components.adapters.lora import Lora
from components.adapters.xlora import XLora
from tests.conformance.hosts import HOSTS, host_of

CASE, ROUTE = HOSTS["llama"], "route(a, b, by=mix)"


def hosted(**options):
    """A Llama with two stirred LoRAs under X-LoRA, and the head's module."""
    host = host_of("llama").requires_grad_(False)
    for seed, name in enumerate("ab"):
        keys = Lora(host="h", rank=2).attach(host, name, seed)
        with torch.no_grad():
            for key in keys:
                host.get_parameter(key).normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
                host.get_parameter(key).requires_grad_(False)
    XLora(host="h", dropout=0, **options).attach(host, "mix", 2, composition=ROUTE)
    book = adapters_of(host)
    book.activate(ROUTE)
    return host, book.modules["mix"].scalings


def forced(head, *values: float) -> None:
    """Let the head say the same of every token: the softmax of what it gives is one-hot."""
    with torch.no_grad():
        head.head[-1].weight.zero_()
        head.head[-1].bias.copy_(1e4 * torch.tensor(values).repeat(head.layers))


def test_a_one_hot_scaling_is_that_adapter_alone_and_zero_scalings_are_the_host(monkeypatch):
    host, head = hosted()
    with torch.no_grad():
        for name, values in (("a", (1, 0)), ("b", (0, 1))):
            adapters_of(host).activate(ROUTE)
            forced(head, *values)
            mixed = CASE.run(host)
            adapters_of(host).activate(name)
            torch.testing.assert_close(mixed, CASE.run(host), rtol=1e-5, atol=1e-6)
        adapters_of(host).activate(ROUTE)
        monkeypatch.setattr(type(head), "forward", lambda self, hidden: hidden.new_zeros(*hidden.shape[:2], 4, 2))
        torch.testing.assert_close(CASE.run(host), CASE.run(host_of("llama")), rtol=1e-5, atol=1e-6)


def test_scalings_sum_to_one_for_every_token_and_layer():
    _, head = hosted(temperature=0.3)
    scalings = head(torch.randn(2, 5, 16))
    assert scalings.shape == (2, 5, 4, 2)
    torch.testing.assert_close(scalings.sum(-1), torch.ones(2, 5, 4))


def test_the_first_run_is_the_bare_host_and_gives_no_gradient_to_it_or_to_the_adapters():
    host, head = hosted()
    seen = []
    hook = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    CASE.run(host).sum().backward()
    hook.remove()
    plain = host_of("llama").model(**CASE.batch).last_hidden_state
    assert torch.equal(seen[0], plain) and not seen[0].requires_grad
    moved = {key for key, p in host.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved and all(".mix.scalings." in key for key in moved)


def test_the_head_learns_the_adapter_of_each_domain_and_mixes_for_both():
    """Sentences of words below 20 are as adapter a has them, those of words above as b: what each gives is the goal."""
    host, head = hosted(layerwise=False, depth=2, width=64)
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.randint(low, low + 17, (12, 4), generator=generator) for low in (3, 20)])
    domain = torch.arange(24) >= 12
    goals = []
    with torch.no_grad():
        for name in "ab":
            adapters_of(host).activate(name)
            goals.append(host(input_ids=ids).logits)
    goal = torch.where(domain[:, None, None], goals[1], goals[0])
    adapters_of(host).activate(ROUTE)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (host(input_ids=ids).logits - goal).pow(2).sum().backward()
        optimizer.step()

    def second(words):
        """How much of adapter b the head takes for each token."""
        return head(host_of("llama").model(input_ids=words).last_hidden_state)[:, :, 0, 1]

    picked, mixed = second(ids), second(torch.cat([ids[:12, :2], ids[12:, 2:]], 1)).mean(0)
    assert picked[domain].mean() > 0.75 and picked[~domain].mean() < 0.25
    assert mixed[:2].mean() < 0.4 and mixed[2:].mean() > 0.6


def test_decoding_step_by_step_mixes_as_one_pass_does():
    host, _ = hosted()
    ids = torch.tensor([[5, 9, 3, 17]])
    with torch.no_grad():
        whole = host(input_ids=ids).logits
        cache = DynamicCache(config=host.config)
        steps = [
            host(input_ids=x, use_cache=True, **cache_argument(host, cache)).logits for x in ids.split([2, 1, 1], 1)
        ]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)
