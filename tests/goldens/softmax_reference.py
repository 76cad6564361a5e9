#!/usr/bin/env python3
"""The oracle of softmax transformers in LLaMA's layout, in float64: llama, mistral, qwen2, qwen3 of transformers.

softmax_reference.py MODEL_DIR...        compares each golden.json with it
softmax_reference.py --make              writes the checkpoints of VARIANTS, random, with their logits
softmax_reference.py --bf16 MODEL_DIR... notes in each golden.json the error of the cases with weights and activations in bf16

Frequencies and angles are float32, as in the models' own code; everything else is float64.
"""
import json, struct, sys
from pathlib import Path
import numpy as np
from gla_reference import read_safetensors, rms_norm, silu
from linear_reference import bf16

HERE = Path(__file__).parent
HF = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8, vocab_size=37, rms_norm_eps=1e-5,
          hidden_act="silu", tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, max_position_embeddings=256, dtype="bfloat16")
VARIANTS = {
    "qwen2/window": dict(HF, architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2, num_hidden_layers=3,
                         use_sliding_window=True, sliding_window=20, max_window_layers=1, rope_theta=1e6),
    "qwen2/layer_types": dict(HF, architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=1, rms_norm_eps=1e-6,
                              tie_word_embeddings=True, use_sliding_window=True, sliding_window=33,
                              layer_types=["sliding_attention", "full_attention"],
                              rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
    "qwen3/base": dict(HF, architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_key_value_heads=2, head_dim=24,
                       attention_bias=False, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=1e6, rope_scaling=None,
                       use_sliding_window=False, sliding_window=None),
    "qwen3/bias": dict(HF, architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_key_value_heads=4, head_dim=10,
                       attention_bias=True, use_sliding_window=False),
}


def frequencies(dim, theta, scaling, max_positions):
    """-> (float32 [dim / 2], factor on cos and sin)"""
    inv = np.float32(1) / np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))
    if kind == "default":
        return inv, 1.0
    if kind == "linear":
        return inv / np.float32(scaling["factor"]), 1.0
    old, factor = scaling.get("original_max_position_embeddings", max_positions), scaling["factor"]
    if kind == "llama3":
        wave = 2 * np.pi / inv.astype(np.float64)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        smooth = (old / wave - low) / (high - low)
        out = np.where(wave > old / low, inv / factor,
                       np.where(wave < old / high, inv, (1 - smooth) * inv / factor + smooth * inv))
        return out.astype(np.float32), 1.0
    assert kind == "yarn", kind
    at = lambda turns: dim * np.log(old / (turns * 2 * np.pi)) / (2 * np.log(theta))
    low, high = max(np.floor(at(32)), 0), min(np.ceil(at(1)), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    return (inv / factor * ramp + inv * (1 - ramp)).astype(np.float32), 0.1 * np.log(factor) + 1


def window_of(c, layer):
    if c["model_type"] == "mistral":
        return c.get("sliding_window")
    if c["model_type"] == "llama" or not c.get("use_sliding_window"):
        return None
    kinds = c.get("layer_types")
    slides = kinds[layer] == "sliding_attention" if kinds else layer >= c.get("max_window_layers", 28)
    return c["sliding_window"] if slides else None


class Model:
    """One sequence, token by token. `act` rounds an activation that a layer writes to memory."""

    def __init__(self, c, w, act=lambda x: x):
        self.c, self.w, self.eps, self.act = c, w, c["rms_norm_eps"], act
        self.heads = c["num_attention_heads"]
        self.kv = c.get("num_key_value_heads") or self.heads
        self.dim = c.get("head_dim") or c["hidden_size"] // self.heads
        scaling = c.get("rope_parameters") or c.get("rope_scaling")
        theta = (c.get("rope_parameters") or {}).get("rope_theta", c.get("rope_theta", 10000.0))
        self.inv, self.factor = frequencies(self.dim, theta, scaling, c["max_position_embeddings"])
        self.kept = [[] for _ in range(c["num_hidden_layers"])]  # (k, v) of each token
        self.position = 0

    def linear(self, name, x):
        return self.act(self.w[name + ".weight"] @ x + self.w.get(name + ".bias", 0.0))

    def norm(self, x, name):
        return self.act(rms_norm(x, self.w[name + ".weight"], self.eps))

    def rotate(self, x):
        angle = (np.float32(self.position) * self.inv).astype(np.float64)
        cos, sin = np.cos(angle) * self.factor, np.sin(angle) * self.factor
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attend(self, layer, x):
        p = f"model.layers.{layer}.self_attn."
        q, k, v = (self.linear(p + n, x).reshape(-1, self.dim) for n in ("q_proj", "k_proj", "v_proj"))
        if p + "q_norm.weight" in self.w:
            q, k = self.norm(q, p + "q_norm"), self.norm(k, p + "k_norm")
        q, k = self.act(self.rotate(q)), self.act(self.rotate(k))
        self.kept[layer].append((k, v))
        window = window_of(self.c, layer)
        keys, values = (np.stack(y).repeat(self.heads // self.kv, axis=1) for y in zip(*self.kept[layer][-(window or 0):]))
        scores = np.einsum("hd,thd->ht", q, keys) * self.dim ** -0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self.linear(p + "o_proj", self.act(np.einsum("ht,thd->hd", weights, values).reshape(-1)))

    def step(self, token):
        w = self.w
        x = w["model.embed_tokens.weight"][token].copy()
        for i in range(self.c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            x = self.act(x + self.attend(i, self.norm(x, p + "input_layernorm")))
            y = self.norm(x, p + "post_attention_layernorm")
            gated = silu(self.linear(p + "mlp.gate_proj", y)) * self.linear(p + "mlp.up_proj", y)
            x = self.act(x + self.linear(p + "mlp.down_proj", self.act(gated)))
        self.position += 1
        return w.get("lm_head.weight", w["model.embed_tokens.weight"]) @ self.norm(x, "model.norm")


def logits_of(c, w, ids, act=lambda x: x):
    model = Model(c, w, act)
    for token in ids:
        logits = model.step(token)
    return logits


def random_weights(c, rng):
    h, inner = c["hidden_size"], c["intermediate_size"]
    dim = c.get("head_dim") or h // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    mat = lambda *s: rng.standard_normal(s) * (1.5 / np.sqrt(s[-1]))
    norm = lambda n: 1 + 0.2 * rng.standard_normal(n)
    w = {"model.embed_tokens.weight": rng.standard_normal((c["vocab_size"], h))}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name, rows, cols in (("q", q, h), ("k", kv, h), ("v", kv, h), ("o", h, q)):
            w[f"{p}self_attn.{name}_proj.weight"] = mat(rows, cols)
            if c.get("attention_bias") or (c["model_type"] == "qwen2" and name != "o"):
                w[f"{p}self_attn.{name}_proj.bias"] = 0.3 * rng.standard_normal(rows)
        if c["model_type"] == "qwen3":
            w[p + "self_attn.q_norm.weight"], w[p + "self_attn.k_norm.weight"] = norm(dim), norm(dim)
        w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"], w[p + "mlp.down_proj.weight"] = mat(inner, h), mat(inner, h), mat(h, inner)
        w[p + "input_layernorm.weight"], w[p + "post_attention_layernorm.weight"] = norm(h), norm(h)
    w["model.norm.weight"] = norm(h)
    if not c["tie_word_embeddings"]:
        w["lm_head.weight"] = mat(c["vocab_size"], h)
    return w


def write_bf16(path, tensors):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, x in tensors.items():
        u = np.ascontiguousarray(x, np.float32).view(np.uint32)
        blob = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(x.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def make(name, seed):
    c, rng, out = VARIANTS[name], np.random.default_rng(seed), HERE / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    write_bf16(out / "model.safetensors", random_weights(c, rng))
    w = read_safetensors(str(out / "model.safetensors"))
    cases = []
    for length in (1, 5, 70, 200):
        ids = [1] + [int(t) for t in rng.integers(3, c["vocab_size"], length - 1)]
        cases.append({"ids": ids, "logits": [float(f"{x:.6g}") for x in logits_of(c, w, ids)]})
    (out / "golden.json").write_text(json.dumps({"about": "float64 logits of softmax_reference.py", "cases": cases}) + "\n")


def note_bf16_errors(directory):
    c = json.loads((directory / "config.json").read_text())
    w = read_safetensors(str(directory / "model.safetensors"))
    w = {n: x if "norm" in n else bf16(x) for n, x in w.items()}
    golden = json.loads((directory / "golden.json").read_text())
    for case in golden["cases"]:
        expected = np.array(case["logits"])
        got = logits_of(c, w, case["ids"], bf16)
        case["bf16_error"] = float(f"{np.sqrt(np.sum((got - expected) ** 2) / np.sum(expected ** 2)):.3g}")
    (directory / "golden.json").write_text(json.dumps(golden) + "\n")
    print(directory, [case["bf16_error"] for case in golden["cases"]])


def check(directory):
    c = json.loads((directory / "config.json").read_text())
    w = read_safetensors(str(directory / "model.safetensors"))
    worst = 0.0
    for case in json.loads((directory / "golden.json").read_text())["cases"]:
        expected = np.array(case["logits"])
        got = logits_of(c, w, case["ids"])
        worst = max(worst, float(np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected ** 2))))
    print(f"{directory}: {worst:.1e}")
    return worst


if __name__ == "__main__":
    if sys.argv[1:] == ["--make"]:
        for seed, variant in enumerate(VARIANTS):
            make(variant, seed)
            note_bf16_errors(HERE / variant)
    elif sys.argv[1:2] == ["--bf16"]:
        for d in sys.argv[2:]:
            note_bf16_errors(Path(d))
    else:
        sys.exit(max(check(Path(d)) for d in sys.argv[1:]) > 1e-5)
