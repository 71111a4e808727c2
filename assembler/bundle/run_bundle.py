"""Ask this bundle with onnxruntime, numpy and tokenizers alone.

    python run_bundle.py --input photo=photo.npy --text question="Which digit is this?"

An input is a .npy of the tensor that its graph takes (manifest.json says how a raw sample becomes it), which may be
shorter along its first axis where the graph takes a mask; a picture may also be bytes [H, W, 3] of the right size.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TYPES = {f"tensor({x})": np.dtype(x) for x in ("float16", "int64", "int8", "bool")} | {"tensor(float)": np.float32}


def main():
    """Print the greedy answer."""
    onnxruntime.set_default_logger_severity(3)  # it would warn of each matrix of a LoRA that may be switched
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    options.add_argument("--text", action="append", default=[], metavar="NAME=WORDS")
    options.add_argument("--max-new-tokens", type=int)
    options.add_argument("--bundle", type=Path, default=Path(__file__).parent, help="by default where this file lies")
    chosen = options.parse_args()
    try:
        files, words = (dict(item.split("=", 1) for item in given) for given in (chosen.input, chosen.text))
    except ValueError:
        options.error("give NAME=FILE.npy and NAME=WORDS")
    try:
        print(Bundle(chosen.bundle).answer(files, words, chosen.max_new_tokens))
    except (KeyError, ValueError, OSError) as error:
        sys.exit(str(error).strip("'\""))


class Bundle:
    """The graphs of a bundle and how they are put together."""

    def __init__(self, folder):
        self.folder, self.about = folder, json.loads((folder / "manifest.json").read_text())
        for name, digest in self.about["files"].items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise ValueError(f"{name} is not the file that was exported; its hash differs")
        self.tokenizer = Tokenizer.from_file(str(folder / self.about["tokenizer"]))
        self.embedding, self.decoder = self.session(self.about["embedding"]), self.session(self.about["decoder"])
        self.past = [x for x in self.decoder.get_inputs() if x.name.startswith("past_key_values.")]
        self.takes = {x.name: TYPES[x.type] for x in self.decoder.get_inputs()}

    def session(self, name):
        """A graph of the bundle."""
        return onnxruntime.InferenceSession(str(self.folder / name), providers=["CPUExecutionProvider"])

    def answer(self, files, words, limit=None):
        """The greedy answer to one sample."""
        embeds, found = self.prompt(files, words), []
        cache = {x.name: np.zeros((1, x.shape[1], 0, x.shape[3]), TYPES[x.type]) for x in self.past}
        names, total = [x.name for x in self.decoder.get_outputs()], 0
        room = self.about.get("positions", 2**31) + 1 - embeds.shape[1]
        if room < 1:
            raise ValueError(f"the prompt has {embeds.shape[1]} tokens, which is more than the model reads")
        for _ in range(min(limit or self.about["max_new_tokens"], room)):
            new, total = embeds.shape[1], total + embeds.shape[1]
            feeds = {"inputs_embeds": embeds, "attention_mask": np.ones((1, total), np.int64), **cache}
            if "position_ids" in self.takes:
                feeds["position_ids"] = np.arange(total - new, total)[None]
            out = dict(zip(names, self.decoder.run(None, feeds), strict=True))
            cache = {name: out[name.replace("past_key_values.", "present.")] for name in cache}
            token = int(out["logits"][0].argmax())
            if token in self.about["stop"]:
                break
            found.append(token)
            embeds = self.embed([token], [])
        return self.tokenizer.decode(found).removeprefix(" ")

    def prompt(self, files, words):
        """inputs_embeds [1, T, D] of the sample: ids from vocab_size on are rows of the slots' features."""
        self.made, bos, text = {}, self.about.get("bos"), ""
        rows: list = []
        ids = [] if bos is None else [bos]
        for part in [*self.about["prompt"], {"slot": None}]:
            if "slot" not in part:
                text += part["text"] if "text" in part else self.given(words, part["column"], "--text")
                continue
            ids += self.tokenizer.encode(text, add_special_tokens=False).ids  # neighbouring texts are cut as one
            text = ""
            if part["slot"] is not None:
                features = self.features(self.about["slots"][part["slot"]], files, words)
                start = self.about["vocab_size"] + sum(map(len, rows))
                ids += range(start, start + len(features))
                rows.append(features)
        return self.embed(ids, rows)

    def embed(self, ids, rows):
        """inputs_embeds [1, T, D]."""
        kind = next(x for x in self.embedding.get_inputs() if x.name == "features")
        features = np.concatenate([np.zeros((0, kind.shape[1])), *rows]).astype(TYPES[kind.type])
        return self.embedding.run(None, {"input_ids": np.array([ids], np.int64), "features": features})[0]

    def features(self, slot, files, words):
        """What a slot's graph makes of its inputs: the real rows [n, D]."""
        made = self.made[slot["graph"]] = self.made.get(slot["graph"]) or self.run(slot, files, words)
        out = [made[name] for name in slot.get("outputs") or made]
        return out[0][0][out[1][0]] if slot["ragged"] else out[0][0]

    def run(self, slot, files, words):
        """Every output of a slot's graph by name, for one sample."""
        session, feeds = self.session(slot["graph"]), {}
        takes = {x.name: x for x in session.get_inputs()}
        for name in slot["inputs"]:
            values, about = self.values(name, files, words), self.about["inputs"][name]["processor"]
            size, shorter = takes[name].shape[1], about["kind"] in ("text", "audio") or f"{name}_mask" in takes
            if values.ndim + 1 != len(takes[name].shape) or len(values) > size or (len(values) < size and not shorter):
                raise ValueError(f"{name}: its graph takes {takes[name].shape[1:]}, and this is {values.shape}")
            mask, lack = np.arange(size) < len(values), size - len(values)
            values = np.pad(values, [(0, lack)] + [(0, 0)] * (values.ndim - 1), constant_values=about.get("pad", 0))
            for key, array in ((name, values), (f"{name}_mask", mask)):
                if key in takes:
                    feeds[key] = array[None].astype(TYPES[takes[key].type])
        return dict(zip([x.name for x in session.get_outputs()], session.run(None, feeds), strict=True))

    def values(self, name, files, words):
        """One input's tensor, without its batch axis."""
        about = self.about["inputs"][name]["processor"]
        if about["kind"] == "text":
            reader = Tokenizer.from_file(str(self.folder / about["tokenizer"]))
            reader.no_padding()
            reader.enable_truncation(about["length"])
            return np.array(reader.encode(self.given(words, name, "--text")).ids, np.int64)
        array = np.load(self.given(files, name, "--input"), allow_pickle=False)
        if about["kind"] == "image" and array.dtype == np.uint8:
            mean, std = np.float32(about["mean"]), np.float32(about["std"])
            array = ((array.reshape(*about["size"], -1) / np.float32(255) - mean) / std).transpose(2, 0, 1)
        return array

    def given(self, values, name, option):
        """What was given under a name."""
        if name not in values:
            raise ValueError(f"the bundle also wants {option} {name}=...")
        return values[name]


if __name__ == "__main__":
    main()
