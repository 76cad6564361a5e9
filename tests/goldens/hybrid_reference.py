#!/usr/bin/env python3
"""The oracle of the hybrids that people download, written for reading: transformers' qwen3_5, granitemoehybrid, nemotron_h,
falcon_h1, bamba, lfm2 and olmo_hybrid, text decoders without experts.

NumPy, float64, one token at a time; `state` is everything a session carries, a flat dict of named parts:
  position           tokens seen
  layers.{i}.S       delta rule [value heads, dk, dv], Mamba-2 [heads, N, P]
  layers.{i}.conv    last inputs of the convolution [taps - 1, channels], oldest first
  layers.{i}.k, .v   [tokens, kv heads, head_dim], k normalised and rotated

  mixer        recurrence of a layer
  delta        S = e^g S;  S = S + k (beta (v - S^T k))^T;  o = S^T q dk^-1/2          g scalar per value head
  mamba2       S = exp(-dt e^A_log) S + B (dt x)^T;  o = S^T C + D x                    per head
  short conv   y = C * conv(B * x)
  attention    softmax, grouped heads, rotary over all, a part or nothing of a head

  hybrid_reference.py MODEL_DIR --ids 1,5,9 [--greedy 32]      logits of the last position: top 10
  hybrid_reference.py --check                                  every golden of these families: the worst error of all
"""
import argparse, json, os
import numpy as np
from gla_reference import read_safetensors, sigmoid, silu
from linear_reference import softmax, softplus
from softmax_reference import frequencies

ACTIVATIONS = {"silu": silu, "swish": silu, "relu2": lambda x: np.maximum(x, 0) ** 2}
LINEAR, SOFTMAX = ("linear_attention", "mamba", "M"), ("full_attention", "attention", "*")
SKIPPED = ("mtp.", "model.visual.", "visual.", "model.mtp.")  # vision tower and multi-token prediction


# ---- Arithmetic -------------------------------------------------------------------------------------------------------

def rms(x, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def l2_norm(x, eps=1e-6):
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps)


def rope(c, head_dim, default_theta=10000.0, default_part=1.0):
    """-> a function (x [heads, head_dim], position) that rotates the first part of every head."""
    p = {**(c.get("rope_scaling") or {}), **(c.get("rope_parameters") or {})}
    theta = p.get("rope_theta", c.get("rope_theta") or default_theta)
    part = p.get("partial_rotary_factor", c.get("partial_rotary_factor") or default_part)
    n = int(head_dim * part)
    inv_freq, factor = frequencies(n, theta, p, c.get("max_position_embeddings"))

    def rotate(x, position):  # angles are float32, as everywhere else
        angle = (np.float32(position) * inv_freq).astype(np.float64)
        cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
        a, b = np.split(x[..., :n], 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., n:]], axis=-1)
    return rotate


def normalise_names(w):
    """The text decoder's tensors under one prefix, `model.`; without vision and multi-token prediction."""
    out = {}
    for name, x in w.items():
        if name.startswith(SKIPPED):
            continue
        for old, new in (("model.language_model.", "model."), ("language_model.model.", "model."),
                         ("language_model.lm_head.", "lm_head."), ("backbone.", "model.")):
            if name.startswith(old):
                name = new + name[len(old):]
        out[name] = x
    return out


class Weights:
    """All tensors below a prefix."""

    def __init__(self, w, prefix=""):
        self.w, self.prefix = w, prefix

    def __getitem__(self, name):
        return self.w[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in self.w

    def at(self, name):
        return Weights(self.w, f"{self.prefix}{name}.")

    def linear(self, name, x):
        y = self[name + ".weight"] @ x
        return y + self[name + ".bias"] if name + ".bias" in self else y


class ShortConv:
    """Depthwise and causal. State: the inputs before this one."""

    def __init__(self, weight, bias, activation):
        self.weight, self.bias, self.activation = weight[:, 0, :].T, bias, activation  # [taps, channels]

    def new_state(self):
        return np.zeros((len(self.weight) - 1, self.weight.shape[1]))

    def __call__(self, x, state, name):
        taps = np.vstack([state[name], x])
        state[name] = taps[1:]
        return self.activation(np.sum(taps * self.weight, axis=0) + self.bias)


# ---- Mixers: new_state(prefix) and __call__(x, state, prefix) -> y ------------------------------------------------------

class Attention:
    def __init__(self, w, heads, kv_heads, head_dim, rotary=None, scale=None, q_norm=None, k_norm=None, norm_all_heads=False,
                 gated=False, k_scale=1.0, o_name="o_proj"):
        self.w, self.heads, self.kv_heads, self.dim, self.rotary = w, heads, kv_heads, head_dim, rotary
        self.scale = head_dim ** -0.5 if scale is None else scale
        self.q_norm, self.k_norm, self.norm_all_heads = q_norm, k_norm, norm_all_heads
        self.gated, self.k_scale, self.o_name = gated, k_scale, o_name

    def new_state(self, prefix):
        empty = np.zeros((0, self.kv_heads, self.dim))
        return {prefix + "k": empty, prefix + "v": empty}

    def __call__(self, x, state, prefix):
        q, k, v = (self.w.linear(n, x) for n in ("q_proj", "k_proj", "v_proj"))
        if self.gated:  # rows of each head: query, then gate
            q, gate = np.split(q.reshape(self.heads, 2 * self.dim), 2, axis=1)
        if self.norm_all_heads:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.reshape(self.heads, self.dim), k.reshape(self.kv_heads, self.dim), v.reshape(self.kv_heads, self.dim)
        if self.q_norm and not self.norm_all_heads:
            q, k = self.q_norm(q), self.k_norm(k)
        k = k * self.k_scale
        if self.rotary:
            q, k = self.rotary(q, state["position"]), self.rotary(k, state["position"])
        state[prefix + "k"] = np.concatenate([state[prefix + "k"], k[None]])
        state[prefix + "v"] = np.concatenate([state[prefix + "v"], v[None]])
        group = self.heads // self.kv_heads
        keys, values = (np.repeat(state[prefix + n], group, axis=1) for n in "kv")
        o = np.einsum("ht,thd->hd", softmax(np.einsum("hd,thd->ht", q, keys) * self.scale), values)
        if self.gated:
            o = o * sigmoid(gate)
        return self.w.linear(self.o_name, o.reshape(-1))


class Delta:
    """Gated delta rule. `project` gives q, k, v (before the convolution), z, b and a of one token, each flat."""

    def __init__(self, w, c, project, beta_scale=1.0, norm="norm", norm_eps=None, out="out_proj"):
        self.w, self.project, self.beta_scale, self.out = w, project, beta_scale, out
        self.H, self.Hv = c["linear_num_key_heads"], c["linear_num_value_heads"]
        self.dk, self.dv = c["linear_key_head_dim"], c["linear_value_head_dim"]
        self.norm, self.eps = w[norm + ".weight"], norm_eps or c.get("rms_norm_eps", 1e-6)
        if "conv1d.weight" in w:
            taps = w["conv1d.weight"]
        else:
            taps = np.concatenate([w[n + "_conv1d.weight"] for n in "qkv"])
        self.conv = ShortConv(taps, 0.0, silu)

    def new_state(self, prefix):
        return {prefix + "S": np.zeros((self.Hv, self.dk, self.dv)), prefix + "conv": self.conv.new_state()}

    def __call__(self, x, state, prefix):
        q, k, v, z, b, a = self.project(self.w, x)
        q, k, v = np.split(self.conv(np.concatenate([q, k, v]), state, prefix + "conv"), [len(q), len(q) + len(k)])
        q, k, v = q.reshape(self.H, self.dk), k.reshape(self.H, self.dk), v.reshape(self.Hv, self.dv)
        group = self.Hv // self.H
        q, k = np.repeat(l2_norm(q) * self.dk ** -0.5, group, axis=0), np.repeat(l2_norm(k), group, axis=0)
        beta = sigmoid(b) * self.beta_scale
        g = -np.exp(self.w["A_log"]) * softplus(a + self.w["dt_bias"])
        S = state[prefix + "S"] * np.exp(g)[:, None, None]
        u = beta[:, None] * (v - np.einsum("hkv,hk->hv", S, k))
        state[prefix + "S"] = S = S + k[:, :, None] * u[:, None, :]
        o = rms(np.einsum("hkv,hk->hv", S, q), self.eps) * self.norm * silu(z.reshape(self.Hv, self.dv))
        return self.w.linear(self.out, o.reshape(-1))


def project_qwen35(w, x):
    """in_proj_qkv: all q, all k, all v; z, b, a apart."""
    qkv, z = w.linear("in_proj_qkv", x), w.linear("in_proj_z", x)
    keys = (len(qkv) - len(z)) // 2
    return (*np.split(qkv, [keys, 2 * keys]), z, w.linear("in_proj_b", x), w.linear("in_proj_a", x))


def project_olmo(w, x):
    return [w.linear(n + "_proj", x) for n in "qkvgba"]


class Mamba2:
    """in_proj rows: gate, x, B, C, dt; the convolution covers x, B and C. `scales`: of those five parts."""

    def __init__(self, w, groups, state_size, eps, activation, dt_limit=None, norm="after gate", scales=None):
        self.w, self.G, self.N, self.eps = w, groups, state_size, eps
        self.H = len(w["A_log"])
        self.inner = w["out_proj.weight"].shape[1]
        self.P = self.inner // self.H
        self.norm, self.scales = norm, scales or [1.0] * 5
        self.dt_limit = [float(x) if not isinstance(x, dict) else np.inf for x in (dt_limit or (0.0, np.inf))]
        self.conv = ShortConv(w["conv1d.weight"], w["conv1d.bias"] if "conv1d.bias" in w else 0.0, activation)

    def new_state(self, prefix):
        return {prefix + "S": np.zeros((self.H, self.N, self.P)), prefix + "conv": self.conv.new_state()}

    def __call__(self, x, state, prefix):
        w, n = self.w, self.G * self.N
        sizes = [self.inner, self.inner, n, n, self.H]
        z, x, B, C, dt = (s * y for s, y in zip(self.scales, np.split(w.linear("in_proj", x), np.cumsum(sizes)[:-1])))
        x, B, C = np.split(self.conv(np.concatenate([x, B, C]), state, prefix + "conv"), [self.inner, self.inner + n])
        x = x.reshape(self.H, self.P)
        B, C = (np.repeat(y.reshape(self.G, self.N), self.H // self.G, axis=0) for y in (B, C))
        dt = np.clip(softplus(dt + w["dt_bias"]), *self.dt_limit)
        S = state[prefix + "S"] * np.exp(-dt * np.exp(w["A_log"]))[:, None, None]
        state[prefix + "S"] = S = S + B[:, :, None] * (dt[:, None] * x)[:, None, :]
        y = (np.einsum("hnp,hn->hp", S, C) + w["D"][:, None] * x).reshape(-1)
        norm = lambda y: rms(y.reshape(self.G, -1), self.eps).reshape(-1) * w["norm.weight"]
        if self.norm == "after gate":
            y = norm(y * silu(z))
        elif self.norm == "before gate":
            y = norm(y) * silu(z)
        else:
            y = y * silu(z)
        return w.linear("out_proj", y)


class GatedConv:
    """LFM2: in_proj rows B, C, x."""

    def __init__(self, w):
        self.w = w
        self.conv = ShortConv(w["conv.weight"], w["conv.bias"] if "conv.bias" in w else 0.0, lambda x: x)

    def new_state(self, prefix):
        return {prefix + "conv": self.conv.new_state()}

    def __call__(self, x, state, prefix):
        B, C, x = np.split(self.w.linear("in_proj", x), 3)
        return self.w.linear("out_proj", C * self.conv(B * x, state, prefix + "conv"))


class Parallel:
    """Falcon-H1: a Mamba-2 layer and a softmax layer read the same input; each with a factor on input and output."""

    def __init__(self, parts):
        self.parts = parts  # (mixer, factor in, factor out)

    def new_state(self, prefix):
        return {name: x for mixer, _, _ in self.parts for name, x in mixer.new_state(prefix).items()}

    def __call__(self, x, state, prefix):
        return sum(after * mixer(before * x, state, prefix) for mixer, before, after in self.parts)


# ---- MLPs -------------------------------------------------------------------------------------------------------------

def gated_mlp(w, x, act=silu, names=("gate_proj", "up_proj", "down_proj"), gate_scale=1.0, down_scale=1.0):
    gate, up, down = names
    return w.linear(down, act(w.linear(gate, x) * gate_scale) * w.linear(up, x)) * down_scale


def fused_mlp(w_in, w_out, x, act):
    gate, up = np.split(w_in @ x, 2)  # gate rows first
    return w_out @ (act(gate) * up)


def plain_mlp(w, x, act):
    return w.linear("down_proj", act(w.linear("up_proj", x)))


# ---- Models -----------------------------------------------------------------------------------------------------------

class Model:
    """One sequence at a time. A subclass fills self.layers with (mixer or None, block): block(x, mix) -> x."""
    EMBED, FINAL = "model.embed_tokens.weight", "model.norm.weight"
    embed_scale = logit_scale = 1.0
    zero_centred = False

    def __init__(self, c, w):
        self.c, self.w = c, Weights(w)
        self.eps = c.get("rms_norm_eps", 1e-6)
        self.act = ACTIVATIONS[c.get("hidden_act", "silu")]
        self.layers = []

    def norm(self, weight):
        factor = 1 + weight if self.zero_centred else weight
        return lambda x: rms(x, self.eps) * factor

    def heads(self):
        heads = self.c["num_attention_heads"]
        return heads, self.c.get("num_key_value_heads") or heads, self.c.get("head_dim") or self.c["hidden_size"] // heads

    def pre_norm_block(self, w, norms, mlp, residual=1.0):
        """x += mix(norm x); x += mlp(norm x)"""
        first, second = (self.norm(w[n + ".weight"]) for n in norms)

        def block(x, mix):
            x = x + residual * mix(first(x))
            return x + residual * mlp(second(x))
        return block

    def new_state(self):
        state = {"position": 0}
        for i, (mixer, _) in enumerate(self.layers):
            if mixer:
                state.update(mixer.new_state(f"layers.{i}."))
        return state

    def step(self, token, state):
        """Consume one token id, update `state` in place, return logits [vocab]."""
        x = self.w[self.EMBED][token] * self.embed_scale
        for i, (mixer, block) in enumerate(self.layers):
            x = block(x, lambda y: mixer(y, state, f"layers.{i}."))
        state["position"] += 1
        head = self.w["lm_head.weight"] if "lm_head.weight" in self.w else self.w[self.EMBED]
        return head @ self.norm(self.w[self.FINAL])(x) * self.logit_scale


class Qwen(Model):
    """qwen3_5(_text)"""
    zero_centred = True

    def __init__(self, c, w):
        super().__init__(c, w)
        heads, kv_heads, dim = self.heads()
        rotary = rope(c, dim, default_part=0.25)
        kinds = c.get("layer_types") or ["linear_attention" if (i + 1) % c.get("full_attention_interval", 4) else "full_attention"
                                         for i in range(c["num_hidden_layers"])]
        for i, kind in enumerate(kinds):
            p = self.w.at(f"model.layers.{i}")
            if kind in SOFTMAX:
                a = p.at("self_attn")
                mixer = Attention(a, heads, kv_heads, dim, rotary, gated=True, q_norm=self.norm(a["q_norm.weight"]),
                                  k_norm=self.norm(a["k_norm.weight"]))
            else:
                a = p.at("linear_attn")
                mixer = Delta(a, c, project_qwen35)
            mlp = lambda x, m=p.at("mlp"): gated_mlp(m, x, self.act)
            self.layers.append((mixer, self.pre_norm_block(p, ("input_layernorm", "post_attention_layernorm"), mlp)))


class Granite(Model):
    def __init__(self, c, w):
        super().__init__(c, w)
        self.embed_scale, self.logit_scale = c.get("embedding_multiplier", 1.0), 1 / c.get("logits_scaling", 1.0)
        heads, kv_heads, dim = self.heads()
        rotary = rope(c, dim) if c.get("position_embedding_type") == "rope" else None
        kinds = c.get("layer_types") or c.get("layers_block_type") or ["mamba"] * c["num_hidden_layers"]
        for i, kind in enumerate(kinds):
            p = self.w.at(f"model.layers.{i}")
            if kind in SOFTMAX:
                mixer = Attention(p.at("self_attn"), heads, kv_heads, dim, rotary, c.get("attention_multiplier", 1.0))
            else:
                mixer = Mamba2(p.at("mamba"), c.get("mamba_n_groups", 1), c.get("mamba_d_state", 256), self.eps, self.act,
                               c.get("time_step_limit"))
            mlp = lambda x, m=p.at("shared_mlp"): fused_mlp(m["input_linear.weight"], m["output_linear.weight"], x, self.act)
            self.layers.append((mixer, self.pre_norm_block(p, ("input_layernorm", "post_attention_layernorm"), mlp,
                                                           c.get("residual_multiplier", 1.0))))


class NemotronH(Model):
    EMBED, FINAL = "model.embeddings.weight", "model.norm_f.weight"

    def __init__(self, c, w):
        super().__init__(c, w)
        self.eps = c.get("layer_norm_epsilon", 1e-5)
        heads, kv_heads, dim = self.heads()
        act = ACTIVATIONS[c.get("mlp_hidden_act", "relu2")]
        kinds = c.get("layers_block_type") or c.get("layer_types") or list(c["hybrid_override_pattern"])
        for i, kind in enumerate(kinds):
            p = self.w.at(f"model.layers.{i}")
            m, norm, mixer = p.at("mixer"), self.norm(p["norm.weight"]), None
            if kind in SOFTMAX:
                mixer = Attention(m, heads, kv_heads, dim)  # no rotary embedding
            elif kind in LINEAR:
                mixer = Mamba2(m, c.get("n_groups", 8), c.get("ssm_state_size", 128), self.eps,
                               ACTIVATIONS[c.get("mamba_hidden_act", "silu")], c.get("time_step_limit"))
            elif kind in ("mlp", "-"):
                mlp = lambda x, m=m: plain_mlp(m, x, act)
            else:
                raise ValueError(f"layer {i}: {kind!r}")
            if mixer:
                self.layers.append((mixer, lambda x, mix, norm=norm: x + mix(norm(x))))
            else:
                self.layers.append((None, lambda x, mix, norm=norm, mlp=mlp: x + mlp(norm(x))))


class FalconH1(Model):
    FINAL = "model.final_layernorm.weight"

    def __init__(self, c, w):
        super().__init__(c, w)
        self.eps = c.get("rms_norm_eps", 1e-5)
        self.embed_scale, self.logit_scale = c.get("embedding_multiplier", 1.0), c.get("lm_head_multiplier", 1.0)
        heads, kv_heads, dim = self.heads()
        rotary = rope(c, dim)
        gate_scale, down_scale = c.get("mlp_multipliers") or (1.0, 1.0)
        norm = "none" if not c.get("mamba_rms_norm") else "before gate" if c.get("mamba_norm_before_gate", True) else "after gate"
        for i in range(c["num_hidden_layers"]):
            p = self.w.at(f"model.layers.{i}")
            mamba = Mamba2(p.at("mamba"), c.get("mamba_n_groups", 1), c.get("mamba_d_state", 256), self.eps, self.act,
                           c.get("time_step_limit"), norm, c.get("ssm_multipliers"))
            attention = Attention(p.at("self_attn"), heads, kv_heads, dim, rotary, k_scale=c.get("key_multiplier", 1.0))
            mixer = Parallel([(mamba, c.get("ssm_in_multiplier", 1.0), c.get("ssm_out_multiplier", 1.0)),
                              (attention, c.get("attention_in_multiplier", 1.0), c.get("attention_out_multiplier", 1.0))])
            mlp = lambda x, m=p.at("feed_forward"): gated_mlp(m, x, self.act, gate_scale=gate_scale, down_scale=down_scale)
            self.layers.append((mixer, self.pre_norm_block(p, ("input_layernorm", "pre_ff_layernorm"), mlp)))


class Bamba(Model):
    FINAL = "model.final_layernorm.weight"

    def __init__(self, c, w):
        super().__init__(c, w)
        self.eps = c.get("rms_norm_eps", 1e-5)
        heads, kv_heads, dim = self.heads()
        rotary = rope({**c, "partial_rotary_factor": 0.5}, dim)
        for i in range(c["num_hidden_layers"]):
            p = self.w.at(f"model.layers.{i}")
            if i in (c.get("attn_layer_indices") or []):
                mixer = Attention(p.at("self_attn"), heads, kv_heads, dim, rotary)
            else:
                mixer = Mamba2(p.at("mamba"), c.get("mamba_n_groups", 1), c.get("mamba_d_state", 256), self.eps, self.act,
                               c.get("time_step_limit"))
            mlp = lambda x, m=p.at("feed_forward"): gated_mlp(m, x, self.act)
            self.layers.append((mixer, self.pre_norm_block(p, ("input_layernorm", "pre_ff_layernorm"), mlp)))


class Lfm2(Model):
    """lfm2"""
    FINAL = "model.embedding_norm.weight"

    def __init__(self, c, w):
        super().__init__(c, w)
        self.eps = c.get("norm_eps", 1e-5)
        heads, kv_heads, dim = self.heads()
        rotary = rope(c, dim, default_theta=1e6)
        softmax_layers = c.get("full_attn_idxs")
        kinds = c.get("layer_types") or ["full_attention" if softmax_layers is None or i in softmax_layers else "conv"
                                         for i in range(c["num_hidden_layers"])]
        for i, kind in enumerate(kinds):
            p = self.w.at(f"model.layers.{i}")
            if kind in SOFTMAX:
                a = p.at("self_attn")
                mixer = Attention(a, heads, kv_heads, dim, rotary, q_norm=self.norm(a["q_layernorm.weight"]),
                                  k_norm=self.norm(a["k_layernorm.weight"]), o_name="out_proj")
            else:
                mixer = GatedConv(p.at("conv"))
            m = p.at("feed_forward")
            mlp = lambda x, m=m: gated_mlp(m, x, silu, ("w1", "w3", "w2"))
            self.layers.append((mixer, self.pre_norm_block(p, ("operator_norm", "ffn_norm"), mlp)))


class OlmoHybrid(Model):
    """Softmax layers normalise the OUTPUT of mixer and MLP, linear layers the input."""

    def __init__(self, c, w):
        super().__init__(c, w)
        heads, kv_heads, dim = self.heads()
        c = {**c, "linear_num_key_heads": c.get("linear_num_key_heads") or heads,
             "linear_num_value_heads": c.get("linear_num_value_heads") or heads}
        c["linear_key_head_dim"] = c.get("linear_key_head_dim") or int(0.75 * c["hidden_size"] / c["linear_num_key_heads"])
        c["linear_value_head_dim"] = c.get("linear_value_head_dim") or 2 * c["linear_key_head_dim"]
        theta = (c.get("rope_parameters") or {}).get("rope_theta", c.get("rope_theta"))
        rotary = rope(c, dim) if theta else None
        for i, kind in enumerate(c["layer_types"]):
            p = self.w.at(f"model.layers.{i}")
            mlp = lambda x, m=p.at("mlp"): gated_mlp(m, x, self.act)
            if kind in SOFTMAX:
                a = p.at("self_attn")
                mixer = Attention(a, heads, kv_heads, dim, rotary, q_norm=self.norm(a["q_norm.weight"]),
                                  k_norm=self.norm(a["k_norm.weight"]), norm_all_heads=True)
                old = "feedforward_layer_norm.weight" in p  # what transformers' save_pretrained makes of it
                first = self.norm(p["feedforward_layer_norm.weight" if old else "post_attention_layernorm.weight"])
                second = self.norm(p["post_feedforward_layernorm.weight"])

                def block(x, mix, first=first, second=second, mlp=mlp):
                    x = x + first(mix(x))
                    return x + second(mlp(x))
            else:
                scale = 2.0 if c.get("linear_allow_neg_eigval", True) else 1.0
                mixer = Delta(p.at("linear_attn"), c, project_olmo, scale, "o_norm", 1e-5, "o_proj")
                old = "attention_layer_norm.weight" in p  # names of the published files
                names = ("attention_layer_norm", "feedforward_layer_norm") if old else ("input_layernorm", "post_attention_layernorm")
                block = self.pre_norm_block(p, names, mlp)
            self.layers.append((mixer, block))


MODELS = {"qwen3_5": Qwen, "qwen3_5_text": Qwen, "granitemoehybrid": Granite, "nemotron_h": NemotronH, "falcon_h1": FalconH1,
          "bamba": Bamba, "lfm2": Lfm2, "olmo_hybrid": OlmoHybrid}


def load(directory):
    c = json.load(open(os.path.join(directory, "config.json")))
    if c["model_type"] not in MODELS:
        raise ValueError(f"model_type {c['model_type']!r} is not in {sorted(MODELS)}")
    index = os.path.join(directory, "model.safetensors.index.json")
    files = sorted(set(json.load(open(index))["weight_map"].values())) if os.path.exists(index) else ["model.safetensors"]
    w = {}
    for name in files:
        w.update(read_safetensors(os.path.join(directory, name)))
    return MODELS[c["model_type"]](c.get("text_config") or c, normalise_names(w))


def check():
    """-> the worst relative error of all cases of all goldens of these families."""
    worst = 0.0
    here = os.path.dirname(os.path.abspath(__file__))
    for family in MODELS:
        for variant in sorted(os.listdir(os.path.join(here, family))):
            directory = os.path.join(here, family, variant)
            model = load(directory)
            for case in json.load(open(os.path.join(directory, "golden.json")))["cases"]:
                state = model.new_state()
                for token in case["ids"]:
                    logits = model.step(token, state)
                error = np.sqrt(np.mean((logits - case["logits"]) ** 2) / np.mean(np.square(case["logits"])))
                worst = max(worst, error)
            print(family, variant, f"{error:.1e}")
    return worst


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", nargs="?")
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--ids", default="1", help="token ids, comma separated")
    ap.add_argument("--greedy", type=int, default=0, help="continue greedily for this many tokens")
    a = ap.parse_args()
    if a.check:
        return print(f"{check():.1e}")
    model = load(a.model)
    state = model.new_state()
    for token in map(int, a.ids.split(",")):
        logits = model.step(token, state)
    if not a.greedy:
        for token in np.argsort(-logits)[:10]:
            print(int(token), f"{logits[token]:.6f}")
    out = []
    for _ in range(a.greedy):
        out.append(int(np.argmax(logits)))
        logits = model.step(out[-1], state)
    if out:
        print(",".join(map(str, out)))


if __name__ == "__main__":
    main()
