#!/usr/bin/env python3
"""Writes a checkpoint of the 1.3B shape (or another) with random bf16 weights, for what depends on sizes alone.

  tests/bench/random_checkpoint.py DIR [--hidden=2048] [--layers=24] [--heads=4] [--vocab=32000] [--tied] [--zeros]

--zeros: no weights but a hole in the file, which takes no room: for `sluice inspect`. Needs NumPy. The tokenizer is the bundled model's: its ids are the first of the vocabulary.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "deploy/models/classics-12m/tokenizer.json"
BLOCK = 1 << 22  # random values that are repeated


def tensors(c):
    """Name, shape, and the mean and deviation of its values."""
    hidden, inner, heads = c["hidden_size"], c["intermediate_size"], c["num_heads"]
    key, value = hidden // 2, hidden
    yield "model.embeddings.weight", (c["vocab_size"], hidden), 0, 0.02
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "attn_norm.weight", (hidden,), 1, 0
        for name, rows in (("q", key), ("k", key), ("v", value), ("g", value)):
            yield f"{layer}attn.{name}_proj.weight", (rows, hidden), 0, 0.02
        yield layer + "attn.gk_proj.0.weight", (16, hidden), 0, 0.02
        yield layer + "attn.gk_proj.1.weight", (key, 16), 0, 0.25
        yield layer + "attn.gk_proj.1.bias", (key,), 4, 1
        yield layer + "attn.g_norm_swish_gate.weight", (value // heads,), 1, 0
        yield layer + "attn.o_proj.weight", (hidden, value), 0, 0.02
        yield layer + "mlp_norm.weight", (hidden,), 1, 0
        yield layer + "mlp.gate_proj.weight", (inner, hidden), 0, 0.02
        yield layer + "mlp.up_proj.weight", (inner, hidden), 0, 0.02
        yield layer + "mlp.down_proj.weight", (hidden, inner), 0, 0.02
    yield "model.norm.weight", (hidden,), 1, 0
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], hidden), 0, 0.02


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dir", type=pathlib.Path)
    ap.add_argument("--hidden", type=int, default=2048)
    ap.add_argument("--layers", type=int, default=24)
    ap.add_argument("--heads", type=int, default=4)
    ap.add_argument("--vocab", type=int, default=32000)
    ap.add_argument("--tied", action="store_true")
    ap.add_argument("--zeros", action="store_true")
    a = ap.parse_args()
    a.dir.mkdir(parents=True, exist_ok=True)
    inner = 256 * -(-int(a.hidden * 4 * 2 / 3) // 256)
    config = {"architectures": ["GLAForCausalLM"], "model_type": "gla", "hidden_size": a.hidden,
              "num_hidden_layers": a.layers, "num_heads": a.heads, "intermediate_size": inner, "vocab_size": a.vocab,
              "tie_word_embeddings": a.tied,
              "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16"}
    (a.dir / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copy(TOKENIZER, a.dir / "tokenizer.json")

    normal = np.random.default_rng(1).standard_normal(BLOCK, dtype=np.float32)
    header, size = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in tensors(config):
        begin, size = size, size + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, size]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blocks = {}  # bytes, by mean and deviation
    with open(a.dir / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape, mean, deviation in () if a.zeros else tensors(config):
            if (mean, deviation) not in blocks:
                bits = (mean + deviation * normal).astype("<f4").view("<u4")
                blocks[mean, deviation] = memoryview((bits >> 16).astype("<u2").tobytes())
            left = 2 * int(np.prod(shape))
            while left:
                left -= out.write(blocks[mean, deviation][:left])
        out.truncate(8 + len(text) + size)
    print(f"{a.dir}: {size / 2e6:.0f} M parameters, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
