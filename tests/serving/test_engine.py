"""Requests answered together get the answers that each would get alone."""

import threading

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.bundle.decoding import DTYPES
from assembler.errors import AssemblerError
from assembler.serving.engine import Busy, Engine, Request, TooLong
from assembler.serving.sampling import Sampling, Text
from tests.serving.conftest import sample


def of_nan(shape, kind, device):
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.full(shape, np.nan, DTYPES[kind]), device)


@pytest.fixture
def engine(bundle, monkeypatch):
    monkeypatch.setattr("assembler.serving.slots.unwritten", of_nan)  # whoever reads it has no answer
    engine = Engine(bundle, rows=3, context=192, waiting=32)
    yield engine
    engine.close(5)


def alone(bundle, seed: int, limit: int = 12) -> str:
    return bundle.generate([sample(seed)], limit)[0]


def test_many_requests_at_once_are_answered_as_each_alone(engine, bundle):
    answers = [engine.submit(Request(sample(seed), max_new_tokens=4 + seed)) for seed in range(12)]
    for seed, answer in enumerate(answers):
        assert answer.text() == alone(bundle, seed, 4 + seed)
        assert answer.reason == "length" and answer.answer_tokens == 4 + seed
    if engine.joins:
        assert engine.steps < sum(a.answer_tokens for a in answers)  # several rows a step


def test_an_input_that_came_before_is_not_encoded_again_and_its_prompt_not_run_again(engine, bundle, monkeypatch):
    seen = []
    encode = bundle.features
    monkeypatch.setattr(bundle, "features", lambda *a: seen.append(1) or encode(*a))
    ask = Request(sample(1), keys={"photo": "p1"}, max_new_tokens=6)
    first, second = engine.submit(ask).text(), engine.submit(ask)
    assert second.text() == first == alone(bundle, 1, 6)
    assert len(seen) == 2  # once here, once in `alone`
    assert second.cached_tokens == (second.prompt_tokens - 1 if engine.joins else 0)


def test_a_row_holds_what_was_written_and_nothing_that_failed(engine, bundle, monkeypatch):
    if not engine.joins:
        pytest.skip("its cache has no rows that stay")
    slots, width = engine.slots, next(x.shape[2] for x in bundle.decoder.get_inputs() if x.name == "inputs_embeds")
    embeds = np.ones((1, 5, width), np.float32)
    slots.prefill(0, embeds, "abcde", 0)

    def broken(*_):
        raise AssemblerError("out of memory")

    monkeypatch.setattr(slots.rows, "run", broken)
    for failing in (lambda: slots.prefill(0, embeds[:, :3], "abxyz", 2), lambda: slots.step(embeds[:, :1], [0], "z")):
        with pytest.raises(AssemblerError, match="out of memory"):
            failing()
        assert slots.held[0] == ["a", "b"]


def test_a_prefix_that_is_shared_with_another_prompt_is_right(engine, bundle):
    if not engine.joins:
        pytest.skip("its cache has no rows that stay")
    engine.submit(Request(sample(1), keys={"photo": "p1"}, max_new_tokens=6)).text()
    longer = {**sample(1), "question": sample(1)["question"] + "or that"}
    answer = engine.submit(Request(longer, keys={"photo": "p1"}, max_new_tokens=6))
    assert answer.text() == bundle.generate([longer], 6)[0]
    assert answer.cached_tokens > 10


def test_a_cancelled_request_leaves_and_the_others_go_on(engine, bundle):
    doomed = engine.submit(Request(sample(0), max_new_tokens=100))
    other = engine.submit(Request(sample(2), max_new_tokens=12))
    next(iter(doomed))
    doomed.cancel()
    doomed.text()
    assert doomed.reason == "cancelled" and doomed.answer_tokens < 100
    assert other.text() == alone(bundle, 2)


def test_a_request_has_its_time(engine):
    answer = engine.submit(Request(sample(0), max_new_tokens=100, seconds=0.0))
    answer.text()
    assert answer.reason == "timeout"


def test_more_than_may_wait_are_refused(bundle):
    engine = Engine(bundle, rows=1, context=192, waiting=2)
    held = []
    with pytest.raises(Busy, match="wait already"):
        held += [engine.submit(Request(sample(0), max_new_tokens=50)) for _ in range(40)]
    engine.close(20)
    with pytest.raises(Busy, match="shutting down"):
        engine.submit(Request(sample(0)))


def test_a_prompt_that_does_not_fit_and_a_missing_input_are_told_to_the_one_who_asked(engine, bundle):
    long = engine.submit(Request({**sample(0), "question": "why " * 200}))
    missing = engine.submit(Request({"question": "what?"}))
    good = engine.submit(Request(sample(1), max_new_tokens=12))
    with pytest.raises(TooLong, match="192 is the context"):
        long.text()
    with pytest.raises(AssemblerError, match="photo"):
        missing.text()
    assert good.text() == alone(bundle, 1)


def test_what_waits_is_finished_before_the_engine_closes(bundle):
    engine = Engine(bundle, rows=2, context=192)
    answers = [engine.submit(Request(sample(seed), max_new_tokens=8)) for seed in range(5)]
    engine.close(30)
    assert [a.text() for a in answers] == [alone(bundle, seed, 8) for seed in range(5)]


def test_the_same_seed_draws_the_same_answer(engine):
    warm = Sampling(temperature=1.0, top_p=0.9, seed=7)
    draws = {engine.submit(Request(sample(0), max_new_tokens=10, sampling=warm)).text() for _ in range(3)}
    other = Sampling(temperature=1.0, top_p=0.9, seed=8)
    assert len(draws) == 1
    assert engine.submit(Request(sample(0), max_new_tokens=10, sampling=other)).text() not in draws


def test_clients_in_many_threads_get_their_own_answers(engine, bundle):
    wanted = [alone(bundle, seed, 6) for seed in range(12)]
    given: dict[int, str] = {}

    def client(i: int) -> None:
        given[i] = engine.submit(Request(sample(i % 12), keys={"photo": str(i % 3)}, max_new_tokens=6)).text()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [given[i] for i in range(24)] == wanted * 2


class Letters:
    """A tokenizer in which an id is a character; 0 is half of one."""

    def decode(self, ids):
        return "".join("\ufffd" if i == 0 else chr(i) for i in ids)


@settings(max_examples=200, deadline=None)
@given(st.text("ab ", max_size=20), st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
def test_pieces_make_up_the_text_after_its_first_space_and_before_the_first_stop_word(text, stop):
    growing, pieces = Text(Letters(), tuple(stop)), []
    for letter in text:
        pieces.append(growing.add(ord(letter)))
        if growing.stopped:
            break
    pieces.append(growing.rest())
    text = text.removeprefix(" ")
    read = next((text[:end] for end in range(len(text) + 1) if any(text[:end].endswith(word) for word in stop)), text)
    first = [at for word in stop if (at := read.find(word)) >= 0]
    assert "".join(pieces) == (read[: min(first)] if first else text)


def test_half_a_character_is_held_back():
    growing = Text(Letters(), ())
    assert growing.add(ord("a")) == "a"
    assert growing.add(0) == ""


@given(st.integers(0, 2**32 - 1))
def test_top_p_keeps_the_likeliest(seed):
    logits = np.array([0.0, 3.0, 1.0])
    assert Sampling(1.0, 0.5, seed).choose(logits, np.random.default_rng(seed)) == 1


def test_a_request_in_preparation_is_finished_before_the_engine_closes(bundle, monkeypatch):
    begun, go_on, encode = threading.Event(), threading.Event(), bundle.features

    def slowly(*arguments):
        begun.set()
        go_on.wait(10)
        return encode(*arguments)

    monkeypatch.setattr(bundle, "features", slowly)
    engine = Engine(bundle, rows=2, context=192)
    answer = engine.submit(Request(sample(0), max_new_tokens=4))
    assert begun.wait(10) and engine.queued == 1
    closing = threading.Thread(target=engine.close, args=(20,))
    closing.start()
    go_on.set()
    closing.join()
    monkeypatch.undo()
    assert answer.text() == alone(bundle, 0, 4)
