#!/usr/bin/env python3
"""Writes tiny random checkpoints of GLA's relatives, every option of each, with the oracle's answers in golden.json.

  make_linear_variants.py                       all of them, into MODEL_TYPE/VARIANT beside this file
  make_linear_variants.py retnet/base ...       these

Layouts are the makers' own (FLA, transformers, state-spaces, TransNormerLLM). Needs NumPy. The same seed gives the same
files. Never run it to make a failing test pass.
"""
import json, math, os, struct, sys
import numpy as np
import linear_reference

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 2312
LENGTHS = (1, 5, 70, 200)
GREEDY_AFTER, GREEDY_TOKENS = 70, 24
ABOUT = ("logits after the last of ids, from float64 arithmetic on the stored weights; prompt_logprobs[i] is "
         "log p(ids[i+1] | ids[:i+1]); margin: gap between the two best logits at each greedy step; bf16_error: relative "
         "RMS error of the oracle's logits with weights and layer activations rounded to bf16")


def bf16_bytes(x):
    u = x.astype(np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_safetensors(path, tensors, dtype, keep_f32=None):
    """dtype "BF16", "F16" or "F32"; tensors whose names end in `keep_f32` stay F32, as makers store them."""
    keep_f32 = KEEP_F32 if keep_f32 is None else keep_f32
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, x in tensors.items():
        kind = "F32" if name.endswith(keep_f32) else dtype
        b = bf16_bytes(x) if kind == "BF16" else x.astype({"F16": np.float16, "F32": np.float32}[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [at, at + len(b)]}
        at += len(b)
        blobs.append(b)
    h = json.dumps(header).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h + b"".join(blobs))


KEEP_F32 = (".A_log", ".g_norm.weight", ".attn.norm.weight")


class Maker:
    def __init__(self, rng):
        self.rng, self.w = rng, {}

    def mat(self, name, *shape, gain=1.5):
        self.w[name] = self.rng.standard_normal(shape) * gain / math.sqrt(shape[-1])

    def vec(self, name, n, mean=1.0, std=0.2):
        self.w[name] = mean + std * self.rng.standard_normal(n)

    def conv(self, name, channels, taps, bias):
        self.w[name + ".weight"] = self.rng.standard_normal((channels, 1, taps)) * 0.6
        if bias:
            self.vec(name + ".bias", channels, 0.0, 0.3)

    # ---- FLA ----
    def fla(self, c, mixer):
        h, inner = c["hidden_size"], c["intermediate_size"]
        self.w["model.embeddings.weight"] = self.rng.standard_normal((c["vocab_size"], h))
        if c["model_type"] == "hgrn2" and c["use_lower_bound"]:
            self.w["model.lower_bounds"] = self.rng.standard_normal((c["num_hidden_layers"], h))
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            self.vec(p + "attn_norm.weight", h)
            mixer(c, p + "attn.")
            self.vec(p + "mlp_norm.weight", h)
            if c.get("_fused_mlp"):
                self.mat(p + "mlp.gate_proj.weight", 2 * inner, h)
            else:
                self.mat(p + "mlp.gate_proj.weight", inner, h)
                self.mat(p + "mlp.up_proj.weight", inner, h)
            self.mat(p + "mlp.down_proj.weight", h, inner)
        self.vec("model.norm.weight", h)
        if not c["tie_word_embeddings"]:
            self.mat("lm_head.weight", c["vocab_size"], h, gain=3)

    def grouped(self, c, p):
        h, heads = c["hidden_size"], c["num_heads"]
        kv = c["num_kv_heads"] or heads
        kd, vd = round(h * c["expand_k"]), round(h * c["expand_v"])
        self.mat(p + "q_proj.weight", kd, h)
        self.mat(p + "k_proj.weight", kd * kv // heads, h)
        self.mat(p + "v_proj.weight", vd * kv // heads, h)
        self.mat(p + "o_proj.weight", h, vd)
        return kd // heads, vd // heads, vd

    def retnet(self, c, p):
        _, dv, vd = self.grouped(c, p)
        if c["use_output_gate"]:
            self.mat(p + "g_proj.weight", vd, c["hidden_size"])
        if c["elementwise_affine"]:
            fused = c["fuse_norm"] and c["use_output_gate"]
            self.vec(p + ("g_norm_swish_gate" if fused else "g_norm") + ".weight", dv)

    def simple_gla(self, c, p):
        h, heads = c["hidden_size"], c["num_heads"]
        kv = c["num_kv_heads"] or heads
        dk, dv, vd = self.grouped(c, p)
        self.mat(p + "g_proj.weight", vd, h)
        self.mat(p + "gk_proj.weight", heads, h, gain=c.get("_gate_gain", 1.5))
        self.vec(p + "gk_proj.bias", heads, 0.0, 0.5)
        if c["use_short_conv"]:
            for n, d in (("q", heads * dk), ("k", kv * dk), ("v", kv * dv)):
                self.conv(f"{p}{n}_conv1d", d, c["conv_size"], c["conv_bias"])
        if c["elementwise_affine"]:
            self.vec(p + ("g_norm_swish_gate" if c["fuse_norm"] else "g_norm") + ".weight", dv)

    def linear_attn(self, c, p):
        dk, dv, _ = self.grouped(c, p)
        if c["elementwise_affine"]:
            self.vec(p + "norm.weight", dv)
        layers = {"hedgehog": [("layer", True)], "t2r": [("layer", False)],
                  "elementwise_product": [("layer1", True), ("layer2", True)]}.get(c["feature_map"], [])
        for layer, bias in layers:
            for side in "qk":
                n, q = f"{p}feature_map_{side}.{layer}", f"{p}feature_map_q.{layer}"
                tied = c["tie_feature_map_qk"] and side == "k"
                if tied:
                    self.w[n + ".weight"] = self.w[q + ".weight"]
                else:
                    self.mat(n + ".weight", dk, dk, gain=1.0)
                if bias and tied:
                    self.w[n + ".bias"] = self.w[q + ".bias"]
                elif bias:
                    self.vec(n + ".bias", dk, 0.3, 0.5)

    def hgrn2(self, c, p):
        h = c["hidden_size"]
        for n in "qfi":
            self.mat(f"{p}{n}_proj.weight", h, h)
            if c["use_short_conv"]:
                self.conv(f"{p}{n}_conv1d", h, c["conv_size"], False)
        self.w[p + "f_proj.weight"] *= c.get("_forget_gain", 2)
        if c["elementwise_affine"]:
            self.vec(p + "g_norm.weight", h)
        self.mat(p + "o_proj.weight", h, h)

    def lightnet(self, c, p):
        h, r = c["hidden_size"], c["gate_low_rank_dim"]
        kd = c["num_heads"] * c["expand_ratio"] if c["num_heads"] and c["expand_ratio"] else h
        for n, d in (("q", kd), ("k", kd), ("v", h)):
            self.mat(f"{p}{n}_proj.weight", d, h)
            if c["use_short_conv"]:
                self.conv(f"{p}{n}_conv1d", d, c["conv_size"], False)
        self.w[p + "k_proj.weight"] *= c.get("_key_gain", 1)
        self.mat(p + "g_proj.0.weight", r, h)
        self.mat(p + "g_proj.1.weight", h, r)
        if c["elementwise_affine"]:
            self.vec(p + "g_norm.weight", h)
        self.mat(p + "o_proj.weight", h, h)

    # ---- TransNormerLLM ----
    def transnormer(self, c):
        h, e, L, bias = c["decoder_embed_dim"], c["hidden_dim"], c["decoder_layers"], c["bias"]
        glu = h if c["glu_dim"] == -1 else c["glu_dim"]

        def linear(name, n, k):
            self.mat(name + ".weight", n, k)
            if bias:
                self.vec(name + ".bias", n, 0.0, 0.2)

        def norm(name, n):
            if c["norm_type"] != "simplermsnorm":
                self.vec(name + ".weight", n)
                self.vec(name + ".bias", n, 0.0, 0.2)

        self.mat("model.embed_tokens.weight", c["vocab_size"], h, gain=math.sqrt(h) if c["no_scale_embedding"] else 1.0)
        for i in range(L):
            p = f"model.layers.{i}."
            norm(p + "token_norm", h)
            linear(p + "token_mixer.qkvu_proj", 4 * e, h)
            norm(p + "token_mixer.norm", e)
            linear(p + "token_mixer.out_proj", h, e)
            if c["linear_use_lrpe_list"][i]:
                H = c["decoder_attention_heads"]
                d = H * (e // H)
                theta = 10000.0 ** (-2 / d * np.arange(d)).reshape(H, 1, -1)
                self.w[p + "token_mixer.lrpe.theta"] = theta * self.rng.uniform(0.8, 1.25, theta.shape)
            norm(p + "channel_norm", h)
            linear(p + "channel_mixer.l1", glu, h)
            linear(p + "channel_mixer.l2", glu, h)
            linear(p + "channel_mixer.l3", h, glu)
        norm("model.final_norm", h)
        if not c["tie_word_embeddings"]:
            self.mat("lm_head.weight", c["vocab_size"], h, gain=3)

    # ---- Mamba ----
    def mamba_outer(self, c, mixer, rows, names):
        embed = "embedding" if names == "state-spaces" else "embeddings"
        h = c.get("hidden_size", c.get("d_model"))
        self.w[f"backbone.{embed}.weight"] = self.rng.standard_normal((rows, h))
        for i in range(c.get("num_hidden_layers", c.get("n_layer"))):
            self.vec(f"backbone.layers.{i}.norm.weight", h)
            mixer(f"backbone.layers.{i}.mixer.")
        self.vec("backbone.norm_f.weight", h)
        if not c.get("tie_word_embeddings", c.get("tie_embeddings")):
            self.mat("lm_head.weight", rows, h, gain=3)

    def mamba2(self, h, inner, p_dim, n, groups, taps, bias, conv_bias, wide_d, gated_norm, most_dt=0.5, most_a=16):
        heads = inner // p_dim

        def mixer(p):
            self.mat(p + "in_proj.weight", 2 * inner + 2 * groups * n + heads, h)
            self.conv(p + "conv1d", inner + 2 * groups * n, taps, conv_bias)
            dt = np.exp(self.rng.uniform(math.log(0.001), math.log(most_dt), heads))
            self.w[p + "dt_bias"] = dt + np.log(-np.expm1(-dt))
            self.w[p + "A_log"] = np.log(self.rng.uniform(1, most_a, heads))
            self.vec(p + "D", inner if wide_d else heads)
            if gated_norm:
                self.vec(p + "norm.weight", inner)
            self.mat(p + "out_proj.weight", h, inner)
            if bias:
                self.vec(p + "in_proj.bias", 2 * inner + 2 * groups * n + heads, 0.0, 0.2)
                self.vec(p + "out_proj.bias", h, 0.0, 0.2)
        return mixer


FLA = dict(attn=None, attn_mode="chunk", bos_token_id=1, eos_token_id=2, elementwise_affine=True, fuse_norm=True,
           fuse_swiglu=True, hidden_act="swish", hidden_ratio=4, hidden_size=64, intermediate_size=8,
           max_position_embeddings=2048, norm_eps=1e-6, num_hidden_layers=2, tie_word_embeddings=False,
           use_cache=True, vocab_size=41)
RETNET = dict(FLA, architectures=["RetNetForCausalLM"], model_type="retnet", num_heads=4, num_kv_heads=None,
              expand_k=1.0, expand_v=2.0, hidden_ratio=2, feature_map=None, use_short_conv=False, conv_size=4,
              use_output_gate=True)
SIMPLE_GLA = dict(FLA, model_type="simple_gla", num_heads=4, num_kv_heads=None, expand_k=1.0, expand_v=1.0,
                  feature_map=None, use_short_conv=True, conv_size=4, conv_bias=False, gate_fn="swish",
                  gate_logit_normalizer=16)
LINEAR = dict(FLA, architectures=["LinearAttentionForCausalLM"], model_type="linear_attn", attn_mode="fused_chunk",
              num_heads=4, num_kv_heads=None, expand_k=1.0, expand_v=1.0, feature_map="elementwise_product",
              tie_feature_map_qk=False, norm_q=False, norm_k=False, norm_feature_map=False)
HGRN2 = dict(FLA, architectures=["HGRN2ForCausalLM"], model_type="hgrn2", num_heads=4, expand_ratio=16,
             use_short_conv=False, conv_size=4, use_lower_bound=True)
LIGHTNET = dict(FLA, architectures=["LightNetForCausalLM"], model_type="lightnet", num_heads=None, expand_ratio=16,
                use_short_conv=False, conv_size=4, gate_low_rank_dim=16)
TNL = dict(architectures=["TransnormerForCausalLM"], model_type="transnormer", decoder_embed_dim=64, decoder_layers=2,
           decoder_attention_heads=4, no_scale_embedding=False, add_bos_token=False, norm_type="simplermsnorm",
           linear_use_lrpe_list=[1, 0], hidden_dim=64, linear_act_fun="silu", glu_dim=24, bias=False, vocab_size=41,
           pad_token_id=0, bos_token_id=1, eos_token_id=2, init_std=0.02, use_cache=True, tie_word_embeddings=False)
MAMBA2 = dict(architectures=["Mamba2ForCausalLM"], model_type="mamba2", hidden_size=64, num_hidden_layers=2, expand=1,
              num_heads=4, head_dim=16, state_size=16, n_groups=1, conv_kernel=4, use_bias=False, use_conv_bias=True,
              hidden_act="silu", layer_norm_epsilon=1e-5, residual_in_fp32=True, chunk_size=64, vocab_size=41,
              time_step_limit=[0.0, {"__float__": "Infinity"}], time_step_min=0.001, time_step_max=0.1,
              time_step_floor=1e-4, time_step_rank=4, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
              pad_token_id=0)
FLA_MAMBA2 = dict(architectures=["Mamba2ForCausalLM"], model_type="mamba2", hidden_size=64, num_hidden_layers=2,
                  expand=2, num_heads=8, head_dim=16, state_size=16, n_groups=1, conv_kernel=4, conv_init=None,
                  use_bias=False, use_conv_bias=True, hidden_act="silu", norm_eps=1e-5, A_init_range=[1, 16],
                  D_has_hdim=False, dt_min=0.001, dt_max=0.1, dt_init_floor=1e-4, dt_limit=[0.0, float("inf")],
                  rmsnorm=True, norm_before_gate=False, residual_in_fp32=True, fuse_norm=True, chunk_size=64,
                  vocab_size=41, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0)
SSM = dict(d_model=64, n_layer=2, vocab_size=43, rms_norm=True, residual_in_fp32=True, fused_add_norm=True,
           pad_vocab_size_multiple=8)

ODD = dict(hidden_size=60, intermediate_size=20, vocab_size=53)
PRIME = dict(hidden_size=39, intermediate_size=17, vocab_size=37, num_heads=3)
# MODEL_TYPE/VARIANT: (base, changes). Keys with an underscore stay out of config.json.
VARIANTS = {
    "retnet/base": (RETNET, {}),
    "retnet/gqa_relu": (RETNET, dict(num_kv_heads=2, feature_map="relu", expand_v=1.0, norm_eps=1e-5, fuse_norm=False)),
    "retnet/unfused_no_gate": (RETNET, dict(use_output_gate=False, fuse_norm=False, tie_word_embeddings=True, feature_map="gelu", expand_v=1.0)),
    "retnet/odd": (RETNET, dict(ODD, num_heads=5, expand_k=5 / 6, elementwise_affine=False, expand_v=1.0, use_short_conv=True)),  # which FLA ignores
    "linear_attn/elu": (LINEAR, dict(feature_map="elu", norm_feature_map=True, tie_word_embeddings=True)),
    "linear_attn/product_gqa": (LINEAR, dict(num_kv_heads=2, fuse_norm=False)),
    "linear_attn/hedgehog": (LINEAR, dict(feature_map="hedgehog", norm_feature_map=True, elementwise_affine=False)),
    "linear_attn/t2r_tied": (LINEAR, dict(feature_map="t2r", tie_feature_map_qk=True, norm_q=True, norm_k=True)),
    "linear_attn/dpfp_odd": (LINEAR, dict(ODD, num_heads=5, num_kv_heads=1, feature_map="dpfp", norm_k=True, norm_feature_map=True)),
    "linear_attn/relu_f32": (LINEAR, dict(feature_map="relu", expand_k=0.5, expand_v=0.5, norm_eps=1e-3, _dtype="F32")),
    "linear_attn/identity": (LINEAR, dict(feature_map="identity", num_heads=2, num_kv_heads=1, tie_word_embeddings=True)),
    "hgrn2/base": (HGRN2, dict(norm_eps=1e-3)),  # the output norm's eps is 1e-5 all the same
    "hgrn2/conv": (HGRN2, dict(use_short_conv=True, expand_ratio=32, num_heads=2)),
    "hgrn2/no_bound_odd": (HGRN2, dict(ODD, use_lower_bound=False, num_heads=5, expand_ratio=None, elementwise_affine=False, _forget_gain=6)),
    "lightnet/base": (LIGHTNET, dict(norm_eps=1e-3)),
    "lightnet/conv_tied": (LIGHTNET, dict(use_short_conv=True, conv_size=3, tie_word_embeddings=True)),
    "lightnet/odd": (LIGHTNET, dict(ODD, num_heads=5, expand_ratio=8, elementwise_affine=False)),
    "transnormer/base": (TNL, {}),
    "transnormer/layernorm_bias": (TNL, dict(norm_type="layernorm", bias=True, glu_dim=-1, linear_act_fun="1+elu", no_scale_embedding=True, linear_use_lrpe_list=[0, 0])),
    "transnormer/odd": (TNL, dict(decoder_embed_dim=60, hidden_dim=60, decoder_attention_heads=5, decoder_layers=3, linear_use_lrpe_list=[1, 1, 1], glu_dim=16, tie_word_embeddings=True, vocab_size=53, linear_act_fun="relu")),
    "mamba2/base": (MAMBA2, {}),
    "mamba2/groups": (MAMBA2, dict(num_hidden_layers=3, n_groups=2, use_bias=True, time_step_limit=[0.01, 0.5], tie_word_embeddings=True)),
    "mamba2/odd": (MAMBA2, dict(hidden_size=72, num_heads=3, head_dim=24, state_size=20, conv_kernel=3, use_conv_bias=False, vocab_size=53, chunk_size=32)),
    "mamba2/fla": (FLA_MAMBA2, dict(D_has_hdim=True, norm_before_gate=True, n_groups=2, expand=1, num_heads=4)),
    "mamba2/fla_no_norm": (FLA_MAMBA2, dict(rmsnorm=False, expand=1, num_heads=4, dt_limit=[0.0, 0.3], tie_word_embeddings=False)),
    "mamba2/state_spaces": (SSM, dict(ssm_cfg={"layer": "Mamba2", "expand": 1, "headdim": 16, "d_state": 32}, tie_embeddings=True)),
    # Long texts, strong decays, head sizes that no vector divides.
    "retnet/long": (RETNET, dict(_lengths=(3000,))),
    "retnet/prime_heads": (RETNET, dict(PRIME, hidden_size=42, num_kv_heads=1, expand_v=13 / 14, feature_map="silu")),
    "retnet/fused_mlp_f16": (RETNET, dict(_dtype="F16", _fused_mlp=True, feature_map="gelu_new", num_heads=2, expand_v=1.0)),
    "linear_attn/long": (LINEAR, dict(_lengths=(3000,), feature_map="elu", norm_feature_map=True)),
    "linear_attn/prime_heads": (LINEAR, dict(PRIME, num_kv_heads=1, feature_map="hedgehog", norm_q=True, norm_feature_map=True)),
    "hgrn2/long": (HGRN2, dict(_lengths=(3000,), use_short_conv=True)),
    "hgrn2/strong": (HGRN2, dict(use_lower_bound=False, _forget_gain=40)),
    "hgrn2/prime_heads": (HGRN2, dict(PRIME, expand_ratio=13, use_short_conv=True, conv_size=3)),
    "lightnet/long": (LIGHTNET, dict(_lengths=(3000,))),
    "lightnet/strong": (LIGHTNET, dict(_key_gain=25)),
    "lightnet/prime_heads": (LIGHTNET, dict(PRIME, num_heads=3, expand_ratio=11, use_short_conv=True)),
    "transnormer/long": (TNL, dict(_lengths=(3000,), linear_use_lrpe_list=[1, 1], linear_act_fun="elu")),
    "transnormer/prime_heads": (TNL, dict(decoder_embed_dim=39, hidden_dim=39, decoder_attention_heads=3, glu_dim=17, vocab_size=37, norm_type="layernorm")),
    "mamba2/long": (MAMBA2, dict(_lengths=(3000,))),
    "mamba2/strong": (MAMBA2, dict(n_groups=2, _most_dt=5.0, _most_a=100)),
    "mamba2/prime_heads": (MAMBA2, dict(hidden_size=39, num_heads=3, head_dim=13, state_size=11, vocab_size=37)),
    "simple_gla/base": (SIMPLE_GLA, {}),
    "simple_gla/gqa_bias": (SIMPLE_GLA, dict(num_kv_heads=2, feature_map="gelu", conv_bias=True, fuse_norm=False, expand_v=2.0)),
    "simple_gla/no_conv_tied": (SIMPLE_GLA, dict(use_short_conv=False, tie_word_embeddings=True, elementwise_affine=False, feature_map="sqrelu")),
    "simple_gla/strong": (SIMPLE_GLA, dict(_gate_gain=200, use_short_conv=False, expand_k=0.5)),
    "simple_gla/long": (SIMPLE_GLA, dict(_lengths=(3000,))),
    "simple_gla/prime_heads": (SIMPLE_GLA, dict(PRIME, num_kv_heads=1, feature_map="silu", conv_size=3)),
}


def build(name, c, rng):
    m = Maker(rng)
    kind = c.get("model_type")
    if kind in ("retnet", "linear_attn", "hgrn2", "lightnet", "simple_gla"):
        m.fla(c, getattr(m, kind))
    elif kind == "transnormer":
        m.transnormer(c)
    elif kind == "mamba2":
        inner = c["expand"] * c["hidden_size"]
        m.mamba_outer(c, m.mamba2(c["hidden_size"], inner, c["head_dim"], c["state_size"], c["n_groups"], c["conv_kernel"],
                                  c["use_bias"], c["use_conv_bias"], c.get("D_has_hdim"), c.get("rmsnorm", True),
                                  c.get("_most_dt", 0.5), c.get("_most_a", 16)),
                      c["vocab_size"], "hf")
    else:
        s, h = c["ssm_cfg"], c["d_model"]
        inner = s.get("expand", 2) * h
        mixer = m.mamba2(h, inner, s["headdim"], s["d_state"], 1, 4, False, True, False, True)
        multiple = c["pad_vocab_size_multiple"]
        m.mamba_outer(c, mixer, -(-c["vocab_size"] // multiple) * multiple, "state-spaces")
    return m.w


def shortened(values):
    return [float(f"{x:.6g}") for x in values]


def golden_case(model, ids, greedy_after=(GREEDY_AFTER,)):
    state, case, logprobs = model.new_state(), {"ids": ids}, []
    for i, token in enumerate(ids):
        logits = model.step(token, state)
        if i + 1 < len(ids) <= 200:
            logprobs.append(logits[ids[i + 1]] - np.logaddexp.reduce(logits))
    assert np.isfinite(logits).all()
    case["logits"], case["prompt_logprobs"] = shortened(logits), shortened(logprobs)
    if len(ids) in greedy_after:
        case["greedy"], case["margin"] = [], []
        for _ in range(GREEDY_TOKENS):
            low, high = np.sort(logits)[-2:]
            case["greedy"].append(int(np.argmax(logits)))
            case["margin"].append(float(f"{high - low:.4g}"))
            logits = model.step(case["greedy"][-1], state)
    return case


def fp32_error(directory, ids, models=linear_reference.MODELS):
    """How far fp32 rounding of activations alone moves a log-probability: what it cannot tell apart, no test should ask for."""
    exact, rounded = (linear_reference.load(directory, models=models) for _ in range(2))
    rounded.act = lambda x: x.astype(np.float32).astype(np.float64)
    states, worst = (exact.new_state(), rounded.new_state()), 0.0
    for token, following in zip(ids, ids[1:]):
        a, b = exact.step(token, states[0]), rounded.step(token, states[1])
        worst = max(worst, abs((a - np.logaddexp.reduce(a) - b + np.logaddexp.reduce(b))[following]))
    return worst


def write_golden(directory, cases):
    with open(os.path.join(directory, "golden.json"), "w") as f:
        json.dump({"about": ABOUT, "cases": cases}, f)


def make(name):
    base, changes = VARIANTS[name]
    rng = np.random.default_rng([SEED, list(VARIANTS).index(name)])
    c = {**base, **changes}
    w = build(name, c, rng)
    d = os.path.join(HERE, name)
    os.makedirs(d, exist_ok=True)
    dtype = c.get("_dtype", "BF16")
    c["dtype"] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]
    with open(d + "/config.json", "w") as f:
        json.dump({k: v for k, v in c.items() if not k.startswith("_")}, f, indent=1)
    write_safetensors(d + "/model.safetensors", w, dtype)
    model, cases = linear_reference.load(d), []
    for length in c.get("_lengths", LENGTHS):
        cases.append(golden_case(model, [1] + rng.integers(3, c["vocab_size"], length - 1).tolist()))
    write_golden(d, cases)
    for case, (_, error) in zip(cases, linear_reference.bf16_errors(d)):
        case["bf16_error"] = float(f"{error:.3g}")
    write_golden(d, cases)
    assert all(fp32_error(d, case["ids"]) < 2e-5 for case in cases if len(case["ids"]) <= 200), "too sensitive for fp32"
    spread = np.std([x for case in cases for x in case["logits"]])
    print(f"{name}: {os.path.getsize(d + '/model.safetensors') // 1024} KiB, std of logits {spread:.2f}, "
          f"bf16 {[case['bf16_error'] for case in cases]}", flush=True)


if __name__ == "__main__":
    for variant in sys.argv[1:] or VARIANTS:
        make(variant)
