#!/usr/bin/env python3
"""Writes the variants below: small random checkpoints, each with the oracle's answers in golden.json.

  make_variants.py            all of them, into variants/ beside this file
  make_variants.py gelu       one

Needs NumPy. The same seed gives the same files. Never run it to make a failing test pass.
"""
import json, os, struct, sys
import numpy as np
import gla_reference

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = {"architectures": ["GLAForCausalLM"], "model_type": "gla", "hidden_size": 32, "num_hidden_layers": 2,
        "num_heads": 2, "vocab_size": 61, "intermediate_size": 48, "bos_token_id": 1, "eos_token_id": 2}
EMBEDDINGS, HEAD = "model.embeddings.weight", "lm_head.weight"

# name -> (fields of config.json, dtype, {end of a tensor's name: its dtype})
VARIANTS = {
    "fp16_sigmoid_conv2": ({"feature_map": "sigmoid", "use_short_conv": True, "conv_size": 2}, "F16", {}),
    "logsigmoid_conv1_no_affine": ({"feature_map": "logsigmoid", "use_short_conv": True, "conv_size": 1,
                                    "elementwise_affine": False}, "BF16", {}),
    "mixed_dtypes_silu": ({"feature_map": "silu"}, "BF16",
                          {"gk_proj.0.weight": "F32", "gk_proj.1.bias": "F32", "g_norm_swish_gate.weight": "F32",
                           "mlp.up_proj.weight": "F16", "model.norm.weight": "F16"}),
    "sqrelu_no_decay_mqa": ({"feature_map": "sqrelu", "num_heads": 4, "num_kv_heads": 1, "clamp_min": 0,
                             "norm_eps": 1e-3}, "F32", {}),
    "gelu_wide_no_gate": ({"feature_map": "gelu", "expand_k": 1.5, "expand_v": 2, "use_output_gate": False,
                           "num_heads": 1}, "F16", {}),
    # transformers 5 uses an lm_head that is in the file although the config calls it tied.
    "tied_but_different": ({"tie_word_embeddings": True, "num_heads": 8, "num_kv_heads": 2}, "BF16", {}),
}


def stored(x, dtype):
    """The bytes of x, rounded to dtype."""
    if dtype == "BF16":
        bits = x.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return x.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def shapes(c):
    h, inner, heads = c["hidden_size"], c["intermediate_size"], c["num_heads"]
    kv = c.get("num_kv_heads") or heads
    key, value = int(h * c.get("expand_k", 0.5)), int(h * c.get("expand_v", 1.0))
    yield EMBEDDINGS, (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        rows = {"q": key, "k": key * kv // heads, "v": value * kv // heads}
        yield p + "attn_norm.weight", (h,)
        for name, n in rows.items():
            yield f"{p}attn.{name}_proj.weight", (n, h)
            if c.get("use_short_conv"):
                yield f"{p}attn.{name}_conv1d.weight", (n, 1, c["conv_size"])
        if c.get("use_output_gate", True):
            yield p + "attn.g_proj.weight", (value, h)
        yield p + "attn.gk_proj.0.weight", (16, h)
        yield p + "attn.gk_proj.1.weight", (rows["k"], 16)
        yield p + "attn.gk_proj.1.bias", (rows["k"],)
        if c.get("elementwise_affine", True):
            name = "g_norm_swish_gate" if c.get("use_output_gate", True) else "g_norm"
            yield f"{p}attn.{name}.weight", (value // heads,)
        yield p + "attn.o_proj.weight", (h, value)
        yield p + "mlp_norm.weight", (h,)
        yield p + "mlp.gate_proj.weight", (inner, h)
        yield p + "mlp.up_proj.weight", (inner, h)
        yield p + "mlp.down_proj.weight", (h, inner)
    yield "model.norm.weight", (h,)
    yield HEAD, (c["vocab_size"], h)


def random_tensor(rng, name, shape):
    x = rng.standard_normal(shape)
    if "norm" in name:
        return 1 + 0.2 * x
    if len(shape) == 3:
        return x * 0.7
    if len(shape) == 2 and name not in (EMBEDDINGS,):
        x = x / np.sqrt(shape[1])
    return x * {True: 3.0, False: 1.2}[name == HEAD or "gk_proj.1" in name]


def write_safetensors(path, tensors, dtype_of):
    header, data = {}, b""
    for name, x in tensors.items():
        raw = stored(x, dtype_of(name))
        header[name] = {"dtype": dtype_of(name), "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def golden(directory, rng, vocab):
    def shortened(values):
        return [float(f"{v:.6g}") for v in values]

    model = gla_reference.GlaModel(directory)
    cases = []
    for length in (1, 2, 17, 64, 65, 200):
        ids = [1] + [int(t) for t in rng.integers(3, vocab, length - 1)]
        state, case, logprobs = model.new_state(), {"ids": ids}, []
        for i, token in enumerate(ids):
            logits = model.step(token, state)
            if i + 1 < length:
                logprobs.append(logits[ids[i + 1]] - np.logaddexp.reduce(logits))
        case["logits"] = shortened(logits)
        case["prompt_logprobs"] = shortened(logprobs)
        if length == 17:
            case["greedy"], case["margin"] = [], []
            for _ in range(24):
                low, high = np.sort(logits)[-2:]
                case["greedy"].append(int(np.argmax(logits)))
                case["margin"].append(float(f"{high - low:.4g}"))
                logits = model.step(case["greedy"][-1], state)
        cases.append(case)
    about = ("logits after the last of ids, from float64 arithmetic on the stored weights; prompt_logprobs[i] is "
             "log p(ids[i+1] | ids[:i+1]); margin: gap between the two best logits at each greedy step")
    with open(os.path.join(directory, "golden.json"), "w") as f:
        json.dump({"about": about, "cases": cases}, f)


def make(name):
    fields, dtype, exceptions = VARIANTS[name]
    config = {**BASE, **fields}
    directory = os.path.join(HERE, "variants", name)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    rng = np.random.default_rng(sorted(VARIANTS).index(name))
    tensors = {tensor: random_tensor(rng, tensor, shape) for tensor, shape in shapes(config)}
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors,
                      lambda tensor: next((d for end, d in exceptions.items() if tensor.endswith(end)), dtype))
    golden(directory, rng, config["vocab_size"])
    print(name, sum(x.size for x in tensors.values()), "parameters")


if __name__ == "__main__":
    for variant in sys.argv[1:] or VARIANTS:
        make(variant)
