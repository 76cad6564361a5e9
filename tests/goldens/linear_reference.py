#!/usr/bin/env python3
"""Linear-attention relatives of GLA, written for reading: the oracle for every backend that serves them.

NumPy only, float64. Loads a checkpoint directory as its maker writes it (config.json + safetensors, sharded
or not) and runs one token at a time; `state` is a flat dict of named arrays and is all that a sequence carries on.
With bf16 rounding it tells what an implementation in that type may miss by (`--bf16`).

  model_type     class        recurrence, per head (rows of S: key channels, columns: value channels)
  retnet         RetNet       S = g_h S + k v^T,  g_h = 1 - 2^(-5-h),  q and k rotated;  o = (dk^-1/2 q)^T S
  simple_gla     SimpleGla    S = exp(logsigmoid(g_h) / 16) S + k v^T;  o = (dk^-1/2 q)^T S
  linear_attn    LinearAttn   S = S + f(k) v^T,  z = z + f(k);  o = (s f(q))^T S [/ ((s f(q)).z + 1e-10)]
  hgrn2          Hgrn2        S = diag(f) S + (1-f) i^T,  f = lb + (1-lb) sigmoid(.);  o = (e^-1/2 silu(q))^T S
  lightnet       LightNet     z' = logaddexp(z, k);  S = diag(exp(z-z')) S + exp(k-z') v^T;  o = (e^-1/2 silu(q))^T S
  transnormer    TransNormer  S = exp(-s_h (1 - l/(L-1) + 1e-5)) S + k v^T;  o = q^T S, no scale
  mamba2         Mamba2       S = exp(dt A_h) S + B (dt x)^T;  y = C^T S + D x        (FLA, Hugging Face, state-spaces)

  linear_reference.py MODEL_DIR --ids 1,5,9 [--greedy 32]
  linear_reference.py MODEL_DIR --bf16      relative RMS error of each golden case with weights and activations in bf16
"""
import argparse, json, math, os
import numpy as np
from gla_reference import gelu_tanh, logsigmoid, read_safetensors, rms_norm, sigmoid, silu


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def gelu_erf(x):
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# RetNet takes these from transformers, not from FLA as GLA does: its "gelu" is the exact one.
TRANSFORMERS_ACT = {"relu": lambda x: np.maximum(x, 0), "relu2": lambda x: np.maximum(x, 0) ** 2, "sigmoid": sigmoid,
                    "silu": silu, "swish": silu, "tanh": np.tanh, "gelu": gelu_erf, "gelu_new": gelu_tanh,
                    "gelu_pytorch_tanh": gelu_tanh, "linear": lambda x: x}
TRANSNORMER_ACT = {"silu": silu, "swish": silu, "relu": TRANSFORMERS_ACT["relu"], "gelu": gelu_erf, "sigmoid": sigmoid,
                   "elu": elu, "1+elu": lambda x: 1 + elu(x), "2+elu": lambda x: 2 + elu(x), "sine": np.sin,
                   "leak": lambda x: np.where(x > 0, x, 0.01 * x)}


def bf16(x):
    """Rounds to the nearest bf16, ties to even."""
    bits = np.asarray(x, np.float64).astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def refuse(condition, why):
    if condition:
        raise ValueError("unsupported checkpoint: " + why)


def special_floats(x):
    """transformers 5 writes infinities as {"__float__": "Infinity"}, earlier ones as a bare Infinity."""
    if isinstance(x, dict):
        return float(x["__float__"]) if set(x) == {"__float__"} else {k: special_floats(v) for k, v in x.items()}
    return [special_floats(v) for v in x] if isinstance(x, list) else x


class Model:
    """Weights by name, state by name. Subclasses have new_state() and step(token, state) -> logits."""

    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.act = lambda x: x  # what rounds an activation that a layer writes to memory

    def get(self, default, *names):
        """A config value under any of its names over the years; null counts as absent."""
        for n in names:
            if self.c.get(n) is not None:
                return self.c[n]
        return default

    def linear(self, name, x):
        y = self.w[name + ".weight"] @ x
        return self.act(y + self.w[name + ".bias"] if name + ".bias" in self.w else y)

    def conv(self, state, key, name, x, act):
        """Depthwise causal convolution; state[key]: the last taps-1 inputs, oldest first."""
        taps = np.vstack([state[key], x])
        state[key] = taps[1:]
        y = np.sum(taps * self.w[name + ".weight"][:, 0, :].T, axis=0)
        return self.act(act(y + self.w[name + ".bias"] if name + ".bias" in self.w else y))

    def run(self, ids):
        state = self.new_state()
        for t in ids:
            logits = self.step(t, state)
        return logits


# ---- FLA's decoder: x += mixer(norm x); x += swiglu(norm x) ----

class FlaModel(Model):
    counts_tokens = False  # the state needs the number of tokens seen

    def __init__(self, c, w):
        super().__init__(c, w)
        refuse(c.get("attn"), "softmax layers (attn)")
        refuse(c.get("attnres_block_size"), "attention residuals")
        refuse(self.get("swish", "hidden_act") not in ("swish", "silu"), "hidden_act other than swish")
        self.width = self.get(2048, "hidden_size", "d_model")
        self.layers = self.get(24, "num_hidden_layers")
        self.eps = self.get(1e-6, "norm_eps", "rms_norm_eps")

    def heads_from(self, expand_k, expand_v, heads):
        self.heads = self.get(heads, "num_heads", "num_attention_heads")
        self.kv_heads = self.get(self.heads, "num_kv_heads", "num_key_value_heads")
        key_dim, value_dim = (round(self.width * self.get(d, n)) for d, n in ((expand_k, "expand_k"), (expand_v, "expand_v")))
        refuse(self.heads % self.kv_heads or key_dim % self.heads or value_dim % self.heads, "heads do not divide")
        self.dk, self.dv = key_dim // self.heads, value_dim // self.heads
        self.group = self.heads // self.kv_heads  # query head j reads key-value head j // group

    def new_state(self):
        state = {"position": np.zeros((), np.int64)} if self.counts_tokens else {}
        for i in range(self.layers):
            for name, shape in self.state_shapes():
                state[f"layers.{i}.{name}"] = np.full(shape, -np.inf) if name == "z_log" else np.zeros(shape)
        return state

    def norm(self, x, name):
        return self.act(rms_norm(x, self.w[name + ".weight"], self.eps))

    def mlp(self, x, p):
        gate = self.linear(p + "gate_proj", x)
        if p + "up_proj.weight" in self.w:
            up = self.linear(p + "up_proj", x)
        else:  # before February 2025: one matrix, gate rows first
            gate, up = np.split(gate, 2)
        return self.linear(p + "down_proj", self.act(silu(gate) * up))

    def step(self, token, state):
        x = self.w["model.embeddings.weight"][token].copy()
        for i in range(self.layers):
            p = f"model.layers.{i}."
            x = self.act(x + self.mixer(self.norm(x, p + "attn_norm"), state, i, p + "attn."))
            x = self.act(x + self.mlp(self.norm(x, p + "mlp_norm"), p + "mlp."))
        if self.counts_tokens:
            state["position"] += 1
        head = self.w.get("lm_head.weight", self.w["model.embeddings.weight"])
        return head @ self.norm(x, "model.norm")


class RetNet(FlaModel):
    counts_tokens = True

    def __init__(self, c, w):
        super().__init__(c, w)
        self.heads_from(1.0, 2.0, 8)
        refuse(self.dk % 2 or self.dk > 256, "RetNet key heads must be even and at most 256 wide")
        refuse(any("conv1d" in n for n in w), "RetNet with convolution weights: FLA never reads them")
        name = c.get("feature_map")
        refuse(name and name not in TRANSFORMERS_ACT, f"feature_map {name}")
        self.map = TRANSFORMERS_ACT[name] if name else (lambda x: x)
        self.output_gate = self.get(True, "use_output_gate")
        self.decay = 1 - 2.0 ** (-5 - np.arange(self.heads))  # per QUERY head, so grouped heads share no state
        self.frequency = 10000.0 ** (-np.arange(0, self.dk, 2) / self.dk)

    def state_shapes(self):
        return [("S", (self.heads, self.dk, self.dv))]

    def rotate(self, x, position):
        a, b = np.split(x, 2, axis=-1)
        cos, sin = np.cos(position * self.frequency), np.sin(position * self.frequency)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    def mixer(self, x, state, i, p):
        w, position = self.w, float(state["position"])
        q = self.rotate(self.map(self.linear(p + "q_proj", x).reshape(self.heads, self.dk)), position) * self.dk ** -0.5
        k = self.rotate(self.map(self.linear(p + "k_proj", x).reshape(self.kv_heads, self.dk)), position)
        v = self.linear(p + "v_proj", x).reshape(self.kv_heads, self.dv)
        k, v = np.repeat(k, self.group, 0), np.repeat(v, self.group, 0)
        S = state[f"layers.{i}.S"]
        S *= self.decay[:, None, None]
        S += k[:, :, None] * v[:, None, :]
        o = np.einsum("hk,hkv->hv", q, S)
        o = rms_norm(o, w.get(p + "g_norm_swish_gate.weight", w.get(p + "g_norm.weight")), self.eps)
        if self.output_gate:
            o = o * silu(self.linear(p + "g_proj", x)).reshape(self.heads, self.dv)
        return self.linear(p + "o_proj", self.act(o.reshape(-1)))


class SimpleGla(FlaModel):
    """FLA's layer SimpleGatedLinearAttention in FLA's decoder: the library has no model of it."""
    ACT = {"relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid, "logsigmoid": logsigmoid, "silu": silu, "swish": silu,
           "sqrelu": lambda x: np.maximum(x, 0) ** 2, "gelu": gelu_tanh}

    def __init__(self, c, w):
        super().__init__(c, w)
        self.heads_from(1.0, 1.0, 4)
        self.taps = self.get(4, "conv_size") if self.get(True, "use_short_conv") else 0
        name = c.get("feature_map")
        self.map = self.ACT[name] if name else (lambda x: x)
        self.normalizer = self.get(16, "gate_logit_normalizer")

    def state_shapes(self):
        dims = (("q", self.heads * self.dk), ("k", self.kv_heads * self.dk), ("v", self.kv_heads * self.dv))
        convs = [("conv_" + n, (self.taps - 1, d)) for n, d in dims] if self.taps else []
        return [("S", (self.heads, self.dk, self.dv))] + convs  # a gate, so a state, for each QUERY head

    def mixer(self, x, state, i, p):
        w = self.w
        q, k, v = (self.linear(p + n + "_proj", x) for n in "qkv")
        if self.taps:
            q, k, v = (self.conv(state, f"layers.{i}.conv_{n}", f"{p}{n}_conv1d", y, silu)
                       for n, y in zip("qkv", (q, k, v)))
        q = self.map(q).reshape(self.heads, self.dk) * self.dk ** -0.5
        k = np.repeat(self.map(k).reshape(self.kv_heads, self.dk), self.group, 0)
        v = np.repeat(v.reshape(self.kv_heads, self.dv), self.group, 0)
        S = state[f"layers.{i}.S"]
        S *= np.exp(logsigmoid(self.linear(p + "gk_proj", x)) / self.normalizer)[:, None, None]
        S += k[:, :, None] * v[:, None, :]
        o = np.einsum("hk,hkv->hv", q, S)
        o = rms_norm(o, w.get(p + "g_norm_swish_gate.weight", w.get(p + "g_norm.weight")), self.eps)
        o = o * silu(self.linear(p + "g_proj", x)).reshape(self.heads, self.dv)
        return self.linear(p + "o_proj", self.act(o.reshape(-1)))


class LinearAttn(FlaModel):
    WIDER = {"hedgehog": 2, "dpfp": 8}  # feature dimension over head dimension

    def __init__(self, c, w):
        super().__init__(c, w)
        self.heads_from(1.0, 1.0, 4)
        self.feature_map = self.get("elementwise_product", "feature_map")
        refuse(self.feature_map not in ("hedgehog", "t2r", "elementwise_product", "dpfp", "elu", "relu", "identity"),
               f"feature_map {self.feature_map}")
        self.features = self.dk * self.WIDER.get(self.feature_map, 1)
        self.normalise = self.get(False, "norm_feature_map")
        self.norm_q, self.norm_k = self.get(False, "norm_q"), self.get(False, "norm_k")

    def state_shapes(self):
        z = [("z", (self.kv_heads, self.features))] if self.normalise else []
        return [("S", (self.kv_heads, self.features, self.dv))] + z

    def matrix(self, p, side, layer, x):
        """A map's linear layer, the same for every head. Tied maps may be stored under one side's name only."""
        for s in (side, "k" if side == "q" else "q"):
            n = f"{p}feature_map_{s}.{layer}"
            if n + ".weight" in self.w:
                y = x @ self.w[n + ".weight"].T
                return y + self.w[n + ".bias"] if n + ".bias" in self.w else y
        raise KeyError(n)

    def map(self, p, side, x):
        if self.feature_map == "hedgehog":
            y = 2 * self.matrix(p, side, "layer", x)
            return softmax(np.concatenate([y, -y], -1))
        if self.feature_map == "t2r":
            return np.maximum(self.matrix(p, side, "layer", x), 0)
        if self.feature_map == "elementwise_product":
            return self.matrix(p, side, "layer1", x) * self.matrix(p, side, "layer2", x)
        if self.feature_map == "dpfp":  # the paper's; FLA up to 0.5.2 has relu(x), -relu(x) here, a bug
            y = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], -1)
            return np.concatenate([y * np.roll(y, j, -1) for j in range(1, 5)], -1)
        return {"elu": lambda: elu(x) + 1, "relu": lambda: np.maximum(x, 0), "identity": lambda: x}[self.feature_map]()

    def mixer(self, x, state, i, p):
        w = self.w
        q = self.map(p, "q", self.linear(p + "q_proj", x).reshape(self.heads, self.dk))
        k = self.map(p, "k", self.linear(p + "k_proj", x).reshape(self.kv_heads, self.dk))
        v = self.linear(p + "v_proj", x).reshape(self.kv_heads, self.dv)
        if self.norm_q:
            q = q / (q.sum(-1, keepdims=True) + 1e-4)
        if self.norm_k:
            k = k / (k.sum(-1, keepdims=True) + 1e-4)
        q = q * self.features ** -0.5  # of the mapped width, not of the head's
        S = state[f"layers.{i}.S"]
        S += k[:, :, None] * v[:, None, :]
        o = np.einsum("hk,hkv->hv", q, np.repeat(S, self.group, 0))
        if self.normalise:
            z = state[f"layers.{i}.z"]
            z += k
            o = o / (np.sum(q * np.repeat(z, self.group, 0), -1, keepdims=True) + 1e-10)
        return self.linear(p + "o_proj", self.act(rms_norm(o, w.get(p + "norm.weight"), self.eps).reshape(-1)))


class Hgrn2(FlaModel):
    NORM_EPS = 1e-5  # the layer's fused norm and projection never gets the config's

    def __init__(self, c, w):
        super().__init__(c, w)
        self.dk = self.get(None, "expand_ratio")
        if self.dk is None and c.get("num_heads") is None:
            self.dk = 128
        self.heads = self.width // self.dk if self.dk else c["num_heads"]
        self.dk = self.dk or self.width // self.heads
        refuse(self.heads * self.dk != self.width, "expand_ratio does not divide hidden_size")
        self.dv = self.width // self.heads
        self.taps = self.get(4, "conv_size") if c.get("use_short_conv") else 0
        self.bounds = np.zeros((self.layers, self.width))
        if self.get(True, "use_lower_bound"):
            b = np.cumsum(softmax(w["model.lower_bounds"].T).T, 0)
            self.bounds = b - b[0]

    def state_shapes(self):
        convs = [("conv_" + n, (self.taps - 1, self.width)) for n in "qfi"] if self.taps else []
        return [("S", (self.heads, self.dk, self.dv))] + convs

    def mixer(self, x, state, i, p):
        w = self.w
        q, f, v = (self.linear(p + n + "_proj", x) for n in "qfi")
        if self.taps:  # without an activation of its own, unlike GLA's
            q, f, v = (self.conv(state, f"layers.{i}.conv_{n}", f"{p}{n}_conv1d", y, lambda y: y)
                       for n, y in zip("qfi", (q, f, v)))
        bound = self.bounds[i]
        forget = bound + (1 - bound) * sigmoid(f)
        k = ((1 - bound) * sigmoid(-f)).reshape(self.heads, self.dk)  # 1 - forget without cancellation
        q = silu(q).reshape(self.heads, self.dk) * self.dk ** -0.5
        S = state[f"layers.{i}.S"]
        S *= forget.reshape(self.heads, self.dk, 1)
        S += k[:, :, None] * v.reshape(self.heads, 1, self.dv)
        o = np.einsum("hk,hkv->hv", q, S).reshape(-1)
        return self.linear(p + "o_proj", self.act(rms_norm(o, w.get(p + "g_norm.weight"), self.NORM_EPS)))  # over the full width


class LightNet(FlaModel):
    NORM_EPS = 1e-6  # as in Hgrn2, another default

    def __init__(self, c, w):
        super().__init__(c, w)
        self.dk, self.heads = c.get("expand_ratio"), c.get("num_heads")
        if self.dk is None and self.heads is None:
            self.dk = 128
        self.heads = self.heads or self.width // self.dk
        self.dk = self.dk or self.width // self.heads
        refuse(self.width % self.heads, "heads do not divide hidden_size")
        self.dv = self.width // self.heads
        self.taps = self.get(4, "conv_size") if c.get("use_short_conv") else 0

    def state_shapes(self):
        dims = (("q", self.heads * self.dk), ("k", self.heads * self.dk), ("v", self.width))
        convs = [("conv_" + n, (self.taps - 1, d)) for n, d in dims] if self.taps else []
        return [("S", (self.heads, self.dk, self.dv)), ("z_log", (self.heads, self.dk))] + convs

    def mixer(self, x, state, i, p):
        w = self.w
        q, k, v = (self.linear(p + n + "_proj", x) for n in "qkv")
        if self.taps:
            q, k, v = (self.conv(state, f"layers.{i}.conv_{n}", f"{p}{n}_conv1d", y, lambda y: y)
                       for n, y in zip("qkv", (q, k, v)))
        q = silu(q).reshape(self.heads, self.dk) * self.dk ** -0.5
        k, v = k.reshape(self.heads, self.dk), v.reshape(self.heads, self.dv)
        before = state[f"layers.{i}.z_log"]
        z = np.logaddexp(before, k)
        S = state[f"layers.{i}.S"]
        S *= np.exp(before - z)[:, :, None]
        S += np.exp(k - z)[:, :, None] * v[:, None, :]
        state[f"layers.{i}.z_log"] = z
        o = np.einsum("hk,hkv->hv", q, S).reshape(-1)
        gate = self.linear(p + "g_proj.1", self.linear(p + "g_proj.0", x))
        return self.linear(p + "o_proj", self.act((rms_norm(o, w.get(p + "g_norm.weight"), self.NORM_EPS) * silu(gate))))


# ---- TransNormerLLM ----

def alibi_slopes(n):
    """Powers of 2^(-8/n); for n that is no power of two, those of the next lower one and every other of the next."""
    if n & (n - 1) == 0:
        return [2.0 ** (-8 * (i + 1) / n) for i in range(n)]
    low = 1 << (n.bit_length() - 1)
    return alibi_slopes(low) + alibi_slopes(2 * low)[0::2][:n - low]


class TransNormer(Model):
    def __init__(self, c, w):
        super().__init__(c, w)
        self.width = self.get(1024, "decoder_embed_dim")
        self.layers = self.get(24, "decoder_layers")
        self.heads = self.get(8, "decoder_attention_heads")
        self.inner = self.get(1024, "hidden_dim")
        refuse(self.inner % self.heads, "heads do not divide hidden_dim")
        refuse(self.layers < 2, "fewer than two layers: the decay of a layer divides by layers - 1")
        self.d = self.inner // self.heads
        act = self.get("silu", "linear_act_fun")
        refuse(act not in TRANSNORMER_ACT, f"linear_act_fun {act}")
        self.map = TRANSNORMER_ACT[act]
        self.simple_norm = self.get("simplermsnorm", "norm_type") == "simplermsnorm"
        self.lrpe = [f"model.layers.{i}.token_mixer.lrpe.theta" in w for i in range(self.layers)]
        wanted = self.get([], "linear_use_lrpe_list")
        refuse(wanted and [bool(x) for x in wanted] != self.lrpe, "linear_use_lrpe_list and the stored thetas disagree")
        self.scale = 1.0 if self.get(False, "no_scale_embedding") else math.sqrt(self.width)
        self.slopes = np.array(alibi_slopes(self.heads))
        self.tied = "lm_head.weight" not in w or self.get(True, "tie_word_embeddings")

    def new_state(self):
        state = {"position": np.zeros((), np.int64)} if any(self.lrpe) else {}
        for i in range(self.layers):
            state[f"layers.{i}.S"] = np.zeros((self.heads, self.d * (2 if self.lrpe[i] else 1), self.d))
        return state

    def norm(self, x, name):
        if self.simple_norm:
            return self.act(rms_norm(x, None, 1e-6))
        return self.act((x - x.mean()) / np.sqrt(x.var() + 1e-5) * self.w[name + ".weight"] + self.w[name + ".bias"])

    def token_mixer(self, x, state, i, p):
        q, k, v, u = np.split(self.linear(p + "qkvu_proj", x), 4)
        q, k, v = (y.reshape(self.heads, self.d) for y in (q, k, v))
        q, k = self.map(q), self.map(k)
        if self.lrpe[i]:
            angle = self.w[p + "lrpe.theta"].reshape(self.heads, self.d) * float(state["position"])
            q, k = (np.concatenate([y * np.cos(angle), y * np.sin(angle)], -1) for y in (q, k))
        S = state[f"layers.{i}.S"]
        S *= np.exp(-self.slopes * (1 - i / (self.layers - 1) + 1e-5))[:, None, None]
        S += k[:, :, None] * v[:, None, :]
        o = np.einsum("hk,hkv->hv", q, S).reshape(-1)
        return self.linear(p + "out_proj", self.act(u * self.norm(o, p + "norm")))

    def step(self, token, state):
        x = self.act(self.scale * self.w["model.embed_tokens.weight"][token])
        for i in range(self.layers):
            p = f"model.layers.{i}."
            x = self.act(x + self.token_mixer(self.norm(x, p + "token_norm"), state, i, p + "token_mixer."))
            y = self.norm(x, p + "channel_norm")
            m = p + "channel_mixer."
            x = self.act(x + self.linear(m + "l3", self.act(self.linear(m + "l1", y) * self.linear(m + "l2", y))))
        if "position" in state:
            state["position"] += 1
        head = self.w["model.embed_tokens.weight" if self.tied else "lm_head.weight"]
        return head @ self.norm(x, "model.final_norm")


# ---- Mamba-2: x += mixer(norm x), no MLP ----

class MambaBase(Model):
    def __init__(self, c, w):
        if "d_model" in c and "hidden_size" not in c:
            c = from_state_spaces(c)
        w = {n.replace("backbone.embedding.", "backbone.embeddings."): x for n, x in w.items()}
        super().__init__(c, w)
        self.layers = c["num_hidden_layers"]
        self.eps = self.get(1e-5, "layer_norm_epsilon", "norm_eps")
        refuse(self.get("silu", "hidden_act") not in ("silu", "swish"), "hidden_act other than silu")
        first = "backbone.layers.0.mixer."
        self.taps = w[first + "conv1d.weight"].shape[2]
        self.inner = w[first + "out_proj.weight"].shape[1]
        refuse(any(".mlp." in n or ".norm2." in n for n in w), "MLP layers (d_intermediate)")
        refuse(any("mixer.Wqkv" in n for n in w), "softmax layers (attn_layer_idx)")
        refuse(any(n.endswith(s) for n in w for s in ("b_norm.weight", "dt_norm.weight", "b_layernorm.weight")), "norms on B, C and dt")

    def step(self, token, state):
        x = self.w["backbone.embeddings.weight"][token].copy()
        for i in range(self.layers):
            p = f"backbone.layers.{i}."
            x = self.act(x + self.mixer(self.norm(x, p + "norm"), state, f"layers.{i}.", p + "mixer."))
        head = self.w.get("lm_head.weight", self.w["backbone.embeddings.weight"])
        return head @ self.norm(x, "backbone.norm_f")

    def norm(self, x, name):
        return self.act(rms_norm(x, self.w[name + ".weight"], self.eps))


def from_state_spaces(c):
    """The original mamba_ssm config.json in Hugging Face's terms."""
    ssm = c.get("ssm_cfg") or {}
    refuse(c.get("d_intermediate"), "MLP layers (d_intermediate)")
    refuse(c.get("attn_layer_idx"), "softmax layers (attn_layer_idx)")
    refuse(not c.get("rms_norm", True), "LayerNorm blocks (rms_norm false)")
    refuse("d_ssm" in ssm, "d_ssm")
    layer = ssm.get("layer", "Mamba1")
    refuse(layer not in ("Mamba1", "Mamba2"), f"ssm_cfg.layer {layer}")
    out = {"model_type": layer.lower().replace("mamba1", "mamba"), "hidden_size": c["d_model"],
           "num_hidden_layers": c["n_layer"], "vocab_size": c["vocab_size"], "layer_norm_epsilon": 1e-5,
           "tie_word_embeddings": c.get("tie_embeddings", True)}
    names = {"d_state": "state_size", "headdim": "head_dim", "ngroups": "n_groups", "dt_limit": "dt_limit",
             "rmsnorm": "rmsnorm", "norm_before_gate": "norm_before_gate", "D_has_hdim": "D_has_hdim"}
    return {**out, **{names[k]: v for k, v in ssm.items() if k in names}, "_honours_norm_before_gate": True}


class Mamba2(MambaBase):
    def __init__(self, c, w):
        super().__init__(c, w)
        first = "backbone.layers.0.mixer."
        self.heads = w[first + "A_log"].shape[0]
        self.p = self.inner // self.heads
        self.n = self.get(128, "state_size")
        conv_dim = w[first + "conv1d.weight"].shape[0]
        self.groups = (conv_dim - self.inner) // (2 * self.n)  # from the shapes: makers disagree about the default
        refuse(self.inner + 2 * self.groups * self.n != conv_dim or self.heads % self.groups, "state_size, n_groups and shapes disagree")
        self.limit = self.get((0.0, math.inf), "time_step_limit", "dt_limit")
        # FLA from 0.5.0 and mamba_ssm mean it; Hugging Face and older FLA write the key and ignore it.
        honoured = "dt_limit" in self.c or "D_has_hdim" in self.c or "_honours_norm_before_gate" in self.c
        self.norm_before_gate = bool(honoured and self.get(False, "norm_before_gate"))

    def new_state(self):
        state = {}
        for i in range(self.layers):
            state[f"layers.{i}.S"] = np.zeros((self.heads, self.n, self.p))  # B x, key-major as in GLA; makers store (heads, p, n)
            state[f"layers.{i}.conv"] = np.zeros((self.taps - 1, self.inner + 2 * self.groups * self.n))
        return state

    def gated_norm(self, y, z, weight):
        """Per group of inner / n_groups channels: norm(y silu(z)), or norm(y) silu(z)."""
        if weight is None:
            return y * silu(z)
        if not self.norm_before_gate:
            y = y * silu(z)
        y = rms_norm(y.reshape(self.groups, -1), None, self.eps).reshape(-1) * weight
        return y * silu(z) if self.norm_before_gate else y

    def mixer(self, x, state, s, p):
        w, per = self.w, self.heads // self.groups
        z, xbc, dt = np.split(self.linear(p + "in_proj", x), [self.inner, 2 * self.inner + 2 * self.groups * self.n])
        xbc = self.conv(state, s + "conv", p + "conv1d", xbc, silu)
        v, B, C = np.split(xbc, [self.inner, self.inner + self.groups * self.n])
        v = v.reshape(self.heads, self.p)
        B, C = (np.repeat(y.reshape(self.groups, self.n), per, 0) for y in (B, C))  # head j: group j // per
        dt = np.clip(softplus(dt + w[p + "dt_bias"]), *self.limit)
        S = state[s + "S"]
        S *= np.exp(-dt * np.exp(w[p + "A_log"]))[:, None, None]
        S += B[:, :, None] * (dt[:, None] * v)[:, None, :]
        y = np.einsum("hn,hnp->hp", C, S) + w[p + "D"].reshape(self.heads, -1) * v
        return self.linear(p + "out_proj", self.act(self.gated_norm(y.reshape(-1), z, w.get(p + "norm.weight"))))


MODELS = {"retnet": RetNet, "linear_attn": LinearAttn, "hgrn2": Hgrn2, "lightnet": LightNet, "transnormer": TransNormer,
          "mamba2": Mamba2, "simple_gla": SimpleGla}


# Small parameters that implementations keep in fp32 whatever the weights' type is.
FP32_PARAMETERS = ("A_log", "dt_bias", ".D", "lower_bounds", "theta")


def load(directory, in_bf16=False, models=MODELS):
    c = special_floats(json.load(open(os.path.join(directory, "config.json"))))
    index = os.path.join(directory, "model.safetensors.index.json")
    files = sorted(set(json.load(open(index))["weight_map"].values())) if os.path.exists(index) else ["model.safetensors"]
    w = {}
    for name in files:
        w.update(read_safetensors(os.path.join(directory, name)))
    kind = c.get("model_type") or (from_state_spaces(c)["model_type"] if "ssm_cfg" in c else None)
    refuse(kind not in models, f"model_type {kind}")
    if in_bf16:
        w = {n: x if n.endswith(FP32_PARAMETERS) or "norm" in n else bf16(x) for n, x in w.items()}
    model = models[kind](c, w)
    if in_bf16:
        model.act = bf16
    return model


def relative_rms(got, expected):
    return float(np.sqrt(np.sum((got - expected) ** 2) / np.sum(np.square(expected))))


def bf16_errors(directory, models=MODELS):
    """Relative RMS error of the logits of each golden case, with weights and layer activations rounded to bf16."""
    with open(os.path.join(directory, "golden.json")) as f:
        cases = json.load(f)["cases"]
    model = load(directory, in_bf16=True, models=models)
    return [(len(c["ids"]), relative_rms(model.run(c["ids"]), np.array(c["logits"]))) for c in cases]


def main(about=__doc__, models=MODELS):
    ap = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--ids", help="token ids, comma separated")
    ap.add_argument("--bf16", action="store_true", help="errors of the golden cases with weights and activations in bf16")
    ap.add_argument("--greedy", type=int, default=0, help="continue greedily for this many tokens")
    a = ap.parse_args()
    if a.bf16:
        for length, error in bf16_errors(a.model, models):
            print(f"{length} tokens: {error:.3g}")
        return
    if a.ids is None:
        ap.error("--ids or --bf16")
    model = load(a.model, models=models)
    state = model.new_state()
    for token in map(int, a.ids.split(",")):
        logits = model.step(token, state)
    if not a.greedy:
        for token in np.argsort(-logits)[:10]:
            print(int(token), f"{logits[token]:.6f}")
        return
    out = []
    for _ in range(a.greedy):
        out.append(int(np.argmax(logits)))
        logits = model.step(out[-1], state)
    print(",".join(map(str, out)))


if __name__ == "__main__":
    main()
