"""FlexiDepth: the dense form against the one that gathers, forced gates, and the price of a layer."""

import torch

from assembler.adapters.book import adapters_of
from components.adapters.flexidepth import FlexiDepth
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["llama"]


def hosted(**options):
    host = host_of("llama").requires_grad_(False)
    FlexiDepth(host="host", reduce=4, **options).attach(host, "tune", seed=0)
    return host, [insert.module for insert in adapters_of(host).inserts("tune").values()]


def always(module, gate: float) -> None:
    """Make a layer's gate the same for every token."""
    module.router.register_forward_hook(lambda router, args, out: torch.full_like(out, gate))


def test_with_open_gates_it_is_the_frozen_model():
    host, modules = hosted(layers=[0, 1])
    for module in modules:
        always(module, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(CASE.run(host), CASE.run(host_of("llama")), rtol=1e-5, atol=1e-6)


def test_by_default_it_is_on_the_later_half_of_the_layers():
    host, modules = hosted()
    assert len(modules) == 1 and adapters_of(host).inserts("tune").keys() == {"layers_1"}


def test_the_dense_form_is_what_each_token_would_compute_alone():
    """Queries, outputs and MLP only for the tokens that take the layer, keys and values for all."""
    host, (module,) = hosted()
    layer, plain = host.model.layers[1], host_of("llama").model.layers[1]
    x, places = torch.randn(1, 6, 16), torch.arange(6)[None]
    rotary = host.model.rotary_emb(x, places)
    causal = torch.ones(6, 6).tril().bool()[None, None]
    with torch.no_grad():
        gate = module.router(plain.input_layernorm(x))
        module.threshold = gate.median().item()
        taken = (gate > module.threshold)[0, :, 0]
        assert 0 < taken.sum() < 6
        dense = layer(x, attention_mask=causal, position_embeddings=rotary)
        full = plain(x, attention_mask=causal, position_embeddings=rotary)
        rows = [
            x[0, t] + gate[0, t] * (full[0, t] - x[0, t])
            if taken[t]
            else x[0, t] + (1 - gate[0, t]) * module.shortcut(plain.post_attention_layernorm(x[0, t]))
            for t in range(6)
        ]
    torch.testing.assert_close(dense[0], torch.stack(rows), rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_of_the_squared_number_of_layers():
    host, modules = hosted(layers=[0, 1], penalty=0.5)
    for module in modules:
        always(module, 0.75)
    host.train()
    for _ in range(2):  # a second run starts to count anew
        CASE.run(host)
        assert modules[0].auxiliary_loss is None
        torch.testing.assert_close(modules[1].auxiliary_loss, torch.tensor(0.5 * 1.5**2))


def test_a_higher_price_takes_fewer_layers():
    used = {}
    for penalty in (0.0, 0.3):
        host, modules = hosted(layers=[0, 1], penalty=penalty)
        goal = CASE.run(host_of("llama")).detach()
        optimizer = torch.optim.Adam([p for p in host.parameters() if p.requires_grad], lr=0.02)
        host.train()
        for _ in range(30):
            optimizer.zero_grad()
            loss = (CASE.run(host) - goal).pow(2).mean() + modules[1].auxiliary_loss
            loss.backward()
            optimizer.step()
        states = host.model(**CASE.batch, output_hidden_states=True).hidden_states
        norms = (host.model.layers[i].input_layernorm for i in range(2))
        gates = [m.router(norm(x)).mean() for m, norm, x in zip(modules, norms, states, strict=False)]
        used[penalty] = torch.stack(gates).sum().item()
    assert used[0.3] < used[0.0] - 0.3
