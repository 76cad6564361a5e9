#!/usr/bin/env python3
"""Writes tiny random checkpoints of the delta rule's models with the oracle's answers in golden.json.

  make_delta_variants.py                          all of them, into MODEL_TYPE/VARIANT beside this file
  make_delta_variants.py delta_net/base ...       these
  make_delta_variants.py --check                  makes none: says whether the files that are there are what it would make

Layouts are flash-linear-attention's, over the years. Needs NumPy. The same seed gives the same files. Never run it to make
a failing test pass.
"""
import filecmp, json, os, shutil, sys, tempfile
import numpy as np
import delta_reference, linear_reference
from make_linear_variants import HERE, LENGTHS, fp32_error, golden_case, write_golden, write_safetensors

GREEDY_AFTER = (5, 70)
MOST_FP32_ERROR = 1.5e-5  # that activations in fp32 may make in a log-probability
FLA = dict(hidden_size=64, num_hidden_layers=2, num_heads=2, hidden_ratio=4, intermediate_size=8, vocab_size=37, norm_eps=1e-6,
           hidden_act="swish", attn_mode="chunk", fuse_norm=True, tie_word_embeddings=True, attn=None, bos_token_id=1,
           eos_token_id=2, max_position_embeddings=2048)
DELTA = dict(FLA, model_type="delta_net", expand_k=0.5, expand_v=1.0, use_gate=False, use_short_conv=True, conv_size=4,
             use_beta=True, use_output_norm=True, qk_norm="l2", qk_activation="silu", allow_neg_eigval=False)
GDN = dict(FLA, model_type="gated_deltanet", head_dim=16, num_v_heads=None, expand_v=1.0, use_gate=True, use_short_conv=True,
           conv_size=4, allow_neg_eigval=False)
KDA = dict(FLA, model_type="kda", head_dim=16, num_v_heads=None, expand_v=1.0, use_short_conv=True, conv_size=4,
           allow_neg_eigval=False, safe_gate=False, lower_bound=None)
ARCHITECTURES = {"delta_net": "DeltaNetForCausalLM", "gated_deltanet": "GatedDeltaNetForCausalLM", "kda": "KDAForCausalLM"}
RATES = ("A_log", "dt_bias")
PRIME = dict(hidden_size=39, intermediate_size=17, num_heads=3, conv_size=3)

# Checkpoints that lie here already, whose weights were drawn in the same way; their answers are computed from what is stored.
STORED = ("delta_net/base", "delta_net/gate_negative", "delta_net/no_conv", "delta_net/norm_first", "delta_net/odd", "delta_net/sum_elu",
          "gated_deltanet/base", "gated_deltanet/gva", "gated_deltanet/plain", "gated_deltanet/sigmoid",
          "kda/base", "kda/bounded", "kda/gva")
# MODEL_TYPE/VARIANT: (seed, base, changes). Keys with an underscore stay out of config.json. Files of other years, long texts,
# strong decays, head sizes that no vector divides.
VARIANTS = {
    "delta_net/early": (0, DELTA, dict(_dtype="F16", _conv_bias=True, _norm="norm", expand_v=0.5, qk_norm="sum",
                                            qk_activation="relu", num_heads=4)),
    "delta_net/long": (1, DELTA, dict(_lengths=(2000,), allow_neg_eigval=True)),
    "delta_net/prime_heads": (2, DELTA, dict(PRIME, expand_k=1.0, use_gate=True, _dtype="F32")),
    "gated_deltanet/december_2024": (3, GDN, dict(_f32=RATES, _useless_d=True, _conv_bias=True)),
    "gated_deltanet/long": (4, GDN, dict(_lengths=(2000,), num_v_heads=4)),
    "gated_deltanet/strong": (5, GDN, dict(_decay=20, allow_neg_eigval=True)),
    "gated_deltanet/prime_heads": (6, GDN, dict(PRIME, num_v_heads=6, head_dim=13, expand_v=7 / 13)),
    "kda/long": (7, KDA, dict(_lengths=(2000,))),
    "kda/no_rate": (8, KDA, dict(lower_bound=-2.5, _no_rate=True, _dtype="F32")),
    "kda/strong": (9, KDA, dict(_decay=6, allow_neg_eigval=True)),
    "kda/prime_heads": (10, KDA, dict(PRIME, num_v_heads=6, head_dim=13, expand_v=11 / 13)),
}


class Maker:
    def __init__(self, c, rng):
        self.c, self.rng, self.w = c, rng, {}

    def mat(self, name, *shape, gain=1.5):
        self.w[name] = self.rng.standard_normal(shape) * (gain / np.sqrt(shape[-1]))

    def vec(self, name, n, mean=1.0, std=0.2):
        self.w[name] = mean + std * self.rng.standard_normal(n)

    def uniform(self, name, low, high, n):
        self.w[name] = self.rng.uniform(low, high, n)

    def inputs(self, p, heads, v_heads, dk, dv):
        h = self.c["hidden_size"]
        for n, rows in (("q", heads * dk), ("k", heads * dk), ("v", v_heads * dv)):
            self.mat(f"{p}{n}_proj.weight", rows, h)
            if self.c["use_short_conv"]:
                self.w[f"{p}{n}_conv1d.weight"] = self.rng.standard_normal((rows, 1, self.c["conv_size"])) * 0.7
                if self.c.get("_conv_bias"):
                    self.vec(f"{p}{n}_conv1d.bias", rows, 0.0, 0.3)
        self.mat(p + "o_proj.weight", h, v_heads * dv)

    def head_sizes(self):
        c = self.c
        return c["num_heads"], c["num_v_heads"] or c["num_heads"], c["head_dim"], round(c["head_dim"] * c["expand_v"])

    def delta_net(self, p):
        c = self.c
        h, heads = c["hidden_size"], c["num_heads"]
        dk, dv = round(h * c["expand_k"]) // heads, round(h * c["expand_v"]) // heads
        self.inputs(p, heads, heads, dk, dv)
        if c["use_beta"]:
            self.mat(p + "b_proj.weight", heads, h)
        if c["use_gate"]:
            self.mat(p + "g_proj.weight", heads * dv, h)
        self.vec(p + c.get("_norm", "o_norm") + ".weight", dv)

    def gated_deltanet(self, p):
        c, h = self.c, self.c["hidden_size"]
        heads, v_heads, dk, dv = self.head_sizes()
        self.inputs(p, heads, v_heads, dk, dv)
        self.mat(p + "a_proj.weight", v_heads, h, gain=1.5 * c.get("_decay", 1))
        self.mat(p + "b_proj.weight", v_heads, h)
        self.uniform(p + "A_log", 0.1, 16, v_heads)
        self.w[p + "A_log"] = np.log(self.w[p + "A_log"])
        self.uniform(p + "dt_bias", -7, -2, v_heads)
        if c["use_gate"]:
            self.mat(p + "g_proj.weight", v_heads * dv, h)
        if c.get("_useless_d"):
            self.vec(p + "D", v_heads)
        self.vec(p + "o_norm.weight", dv)

    def kda(self, p):
        c, h = self.c, self.c["hidden_size"]
        heads, v_heads, dk, dv = self.head_sizes()
        self.inputs(p, heads, v_heads, dk, dv)
        self.mat(p + "f_proj.0.weight", dv, h)
        self.mat(p + "f_proj.1.weight", v_heads * dk, dv, gain=1.5 * c.get("_decay", 1))
        self.mat(p + "b_proj.weight", v_heads, h)
        if c["safe_gate"]:
            self.uniform(p + "A_log", -0.5, 0.5, v_heads)
        elif not c.get("_no_rate"):
            self.uniform(p + "A_log", 1, 16, v_heads)
            self.w[p + "A_log"] = np.log(self.w[p + "A_log"])
        self.uniform(p + "dt_bias", -7, -2, v_heads * dk)
        self.mat(p + "g_proj.0.weight", dv, h)
        self.mat(p + "g_proj.1.weight", v_heads * dv, dv)
        self.vec(p + "g_proj.1.bias", v_heads * dv, 0.0, 0.3)
        self.vec(p + "o_norm.weight", dv)

    def model(self):
        c, h, inner = self.c, self.c["hidden_size"], self.c["intermediate_size"]
        self.w["model.embeddings.weight"] = self.rng.standard_normal((c["vocab_size"], h))
        norms = ("attn.norm", "mlp.norm") if c.get("_norm_first") else ("attn_norm", "mlp_norm")
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            getattr(self, c["model_type"])(p + "attn.")
            self.mat(p + "mlp.gate_proj.weight", inner, h)
            self.mat(p + "mlp.up_proj.weight", inner, h)
            self.mat(p + "mlp.down_proj.weight", h, inner)
            for norm in norms:
                self.vec(f"{p}{norm}.weight", h)
            if c.get("_fused_mlp"):
                gate, up = p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"
                self.w[gate] = np.concatenate([self.w[gate], self.w.pop(up)])
        self.vec("model.norm.weight", h)
        if not c["tie_word_embeddings"]:
            self.mat("lm_head.weight", c["vocab_size"], h, gain=3.0)
        return self.w


SEED = 2406


def make(name, folder):
    """config.json and model.safetensors of a variant -> the ids of its cases"""
    number, base, changes = VARIANTS[name]
    rng = np.random.default_rng([SEED, number])
    c = {**base, **changes}
    weights = Maker(c, rng).model()
    dtype = c.get("_dtype", "BF16")
    c = {"architectures": [ARCHITECTURES[c["model_type"]]], **c,
         "dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]}
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, name, "config.json"), "w") as f:
        json.dump({k: v for k, v in c.items() if not k.startswith("_")}, f, indent=1)
    write_safetensors(os.path.join(folder, name, "model.safetensors"), weights, dtype, c.get("_f32", ()))
    return [[1] + rng.integers(3, c["vocab_size"], length - 1).tolist() for length in c.get("_lengths", LENGTHS)]


def take(name, folder):
    """The same of a checkpoint that lies here."""
    if os.path.abspath(folder) != HERE:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(os.path.join(HERE, name, file), os.path.join(folder, name, file))
    with open(os.path.join(HERE, name, "golden.json")) as f:
        return [case["ids"] for case in json.load(f)["cases"]]


def answer(name, folder, lists_of_ids):
    d = os.path.join(folder, name)
    model = linear_reference.load(d, models=delta_reference.MODELS)
    cases = [golden_case(model, ids, GREEDY_AFTER) for ids in lists_of_ids]
    write_golden(d, cases)
    for case, (_, error) in zip(cases, linear_reference.bf16_errors(d, delta_reference.MODELS)):
        case["bf16_error"] = float(f"{error:.3g}")
        # Some token of a few cases stands where rounding moves it far; their last logits are compared all the same.
        sensitive = len(case["ids"]) <= 200 and fp32_error(d, case["ids"], delta_reference.MODELS) > MOST_FP32_ERROR
        if sensitive:
            del case["prompt_logprobs"]
        print(f"{name}: {len(case['ids'])} tokens, bf16 {error:.3g}{', too sensitive for log-probabilities' if sensitive else ''}",
              flush=True)
    write_golden(d, cases)


def write(name, folder):
    answer(name, folder, (make if name in VARIANTS else take)(name, folder))


def check(name):
    with tempfile.TemporaryDirectory() as folder:
        write(name, folder)
        files = ["config.json", "model.safetensors", "golden.json"]
        _, different, missing = filecmp.cmpfiles(os.path.join(folder, name), os.path.join(HERE, name), files, shallow=False)
        if different or missing:
            raise SystemExit(f"{name}: {', '.join(different + missing)} would be others")


if __name__ == "__main__":
    for variant in [n for n in sys.argv[1:] if n != "--check"] or (*STORED, *VARIANTS):
        check(variant) if "--check" in sys.argv else write(variant, HERE)
