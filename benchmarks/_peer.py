"""llama.cpp or onnxruntime-genai, each in an interpreter of its own, told what to do by lines of JSON.

PYTHON benchmarks/_peer.py llama_cpp MODEL.gguf | genai FOLDER

Run by `benchmarks.serving`; it needs numpy and the peer's package alone.
"""

import json
import os
import statistics
import sys
import time

import numpy as np

THREADS, CONTEXT = 2, 4608


class LlamaCpp:
    """A GGUF file, through llama-cpp-python's low-level calls."""

    def __init__(self, path):
        import llama_cpp

        self.lib, self.version = llama_cpp, llama_cpp.__version__
        self.llm = llama_cpp.Llama(
            path, n_ctx=CONTEXT, n_batch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False
        )

    def start(self, ids):
        """Logits [V] after a prompt."""
        self.llm.reset()
        self.llm._ctx.kv_cache_clear()
        return self.step(ids)

    def step(self, ids):
        """Logits [V] after more tokens."""
        self.llm.eval(ids)
        found = self.lib.llama_get_logits(self.llm._ctx.ctx)
        return np.ctypeslib.as_array(found, (self.llm.n_vocab(),))


class Genai:
    """A folder as its builder writes one."""

    def __init__(self, path):
        import onnxruntime_genai

        self.lib, self.version = onnxruntime_genai, onnxruntime_genai.__version__
        self.model = onnxruntime_genai.Model(path)

    def start(self, ids):
        """Logits [V] after a prompt."""
        params = self.lib.GeneratorParams(self.model)
        params.set_search_options(do_sample=False, max_length=CONTEXT, batch_size=1)
        self.generator = self.lib.Generator(self.model, params)
        return self.step(ids)

    def step(self, ids):
        """Logits [V] after more tokens."""
        self.generator.append_tokens(np.array([ids], np.int32))
        return self.generator.get_logits().reshape(-1)


def speed(peer, ids, steps, prompts):
    """Tokens a second of a prompt, the median of several times, and of what follows it, each the likeliest."""
    read = []
    for _ in range(prompts):
        start = time.perf_counter()
        token = int(peer.start(ids).argmax())
        read.append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(steps):
        token = int(peer.step([token]).argmax())
    return {"prefill": len(ids) / statistics.median(read), "decode": steps / (time.perf_counter() - start)}


def logits(peer, ids, out):
    """The logits [T, V] after each token, into a file."""
    rows = [np.array(peer.start(ids[:1]))] + [np.array(peer.step([token])) for token in ids[1:]]
    np.save(out, np.stack(rows).astype(np.float32))
    return {}


def main(name, path):
    """Answer line by line until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    peer = {"llama_cpp": LlamaCpp, "genai": Genai}[name](path)
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        do = {"speed": speed, "logits": logits}[asked.pop("do")]
        print(json.dumps(do(peer, **asked)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
