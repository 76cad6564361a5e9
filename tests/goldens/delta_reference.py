#!/usr/bin/env python3
"""The delta rule's models, written for reading: the oracle for every backend that serves them.

NumPy only, float64, one token at a time, in the style and with the options of linear_reference.py.

  model_type      recurrence, per value head (rows of S: key channels, columns: value channels)
  delta_net       u = beta (v - S^T k);                        S = S + k u^T;  o = (dk^-1/2 q)^T S
  gated_deltanet  S = e^g S;  then the same,                   g = -e^A_log softplus(a + dt_bias) per value head
  kda             S = diag(e^g) S;  then the same,             g per value head and key channel

  delta_reference.py MODEL_DIR --ids 1,5,9 [--greedy 32]
  delta_reference.py MODEL_DIR --bf16      relative RMS error of each golden case with weights and activations in bf16
"""
import numpy as np
import linear_reference
from gla_reference import rms_norm, sigmoid, silu
from linear_reference import FlaModel, elu, refuse, softplus

ACTIVATIONS = {"silu": silu, "relu": lambda x: np.maximum(x, 0), "elu": lambda x: elu(x) + 1, "identity": lambda x: x}


def unit(x):
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def sums_to_one(x):
    return x / np.maximum(np.sum(np.abs(x), axis=-1, keepdims=True), 1e-6)


class Delta(FlaModel):
    LAYERS, HEADS = 24, 16

    def __init__(self, c, w):
        super().__init__(c, w)
        self.layers = self.get(self.LAYERS, "num_hidden_layers")
        self.heads = self.v_heads = self.get(self.HEADS, "num_heads")
        self.taps = self.get(4, "conv_size") if self.get(True, "use_short_conv") else 0
        self.beta_max = 2.0 if self.get(False, "allow_neg_eigval") else 1.0
        self.qk_activation, self.qk_norm = silu, unit
        self.use_beta, self.gate_activation = True, silu
        self.read_heads()
        refuse(self.v_heads % self.heads, "num_v_heads is no multiple of num_heads")

    def read_heads(self):
        """num_v_heads, head_dim and expand_v, as gated_deltanet and kda have them."""
        self.v_heads = self.get(self.heads, "num_v_heads")
        self.dk = self.get(self.HEAD_DIM, "head_dim")
        self.dv = round(self.dk * self.get(self.EXPAND_V, "expand_v"))
        refuse(self.dv != self.dk * self.get(self.EXPAND_V, "expand_v"), "head_dim times expand_v is not whole")

    def state_shapes(self):
        qk, v = self.heads * self.dk, self.v_heads * self.dv
        convs = [(f"conv_{n}", (self.taps - 1, size)) for n, size in (("q", qk), ("k", qk), ("v", v))]
        return [("S", (self.v_heads, self.dk, self.dv))] + (convs if self.taps else [])

    def norm(self, x, name):
        if name + ".weight" not in self.w:  # norm_first, June 2024 to February 2025: a part of what follows it
            name = name.replace("_norm", ".norm")
        return super().norm(x, name)

    def project(self, name, x, state, s, p, activation):
        y = self.linear(f"{p}{name}_proj", x)
        if not self.taps:
            return self.act(activation(y))
        return self.conv(state, f"{s}conv_{name}", f"{p}{name}_conv1d", y, activation)

    def log_decay(self, x, p):
        """-> (v_heads, 1 or dk)"""
        return np.zeros((self.v_heads, 1))

    def gate(self, x, p):
        """-> (v_heads * dv), or None"""
        return self.linear(p + "g_proj", x) if p + "g_proj.weight" in self.w else None

    def mixer(self, x, state, i, p):
        s = f"layers.{i}."
        q, k = (self.qk_norm(self.project(n, x, state, s, p, self.qk_activation).reshape(self.heads, self.dk)) for n in "qk")
        v = self.project("v", x, state, s, p, silu).reshape(self.v_heads, self.dv)
        beta = self.beta_max * (sigmoid(self.linear(p + "b_proj", x)) if self.use_beta else np.ones(self.v_heads))
        q, k = (np.repeat(y, self.v_heads // self.heads, 0) for y in (q, k))  # value head j: key head j // (v_heads / heads)
        S = state[s + "S"]
        S *= np.exp(self.log_decay(x, p))[..., None]
        u = beta[:, None] * (v - np.einsum("hk,hkv->hv", k, S))
        S += k[:, :, None] * u[:, None, :]
        o = np.einsum("hk,hkv->hv", q * self.dk ** -0.5, S)
        norm = "o_norm.weight" if p + "o_norm.weight" in self.w else "norm.weight"  # until June 2024
        o = rms_norm(o, self.w[p + norm], self.eps).reshape(-1)
        gate = self.gate(x, p)
        if gate is not None:
            o = o * self.gate_activation(gate)
        return self.linear(p + "o_proj", self.act(o))


class DeltaNet(Delta):
    def read_heads(self):
        self.heads_from(1.0, 1.0, self.HEADS)
        activation, norm = self.get("silu", "qk_activation"), self.get("l2", "qk_norm")
        refuse(activation not in ACTIVATIONS, f"qk_activation {activation}")
        refuse(norm not in ("l2", "sum"), f"qk_norm {norm}")
        refuse(norm == "sum" and activation in ("silu", "identity"), "qk_norm sum of values that may be negative")
        self.qk_activation, self.qk_norm = ACTIVATIONS[activation], unit if norm == "l2" else sums_to_one
        self.use_beta = self.get(True, "use_beta")


class GatedDeltaNet(Delta):
    LAYERS, HEADS, HEAD_DIM, EXPAND_V = 21, 6, 256, 2.0

    def read_heads(self):
        super().read_heads()
        name = self.get("swish", "output_gate_activation")
        refuse(name not in ("swish", "silu", "sigmoid"), f"output_gate_activation {name}")
        self.gate_activation = sigmoid if name == "sigmoid" else silu

    def log_decay(self, x, p):
        a = self.linear(p + "a_proj", x)
        return (-np.exp(self.w[p + "A_log"]) * softplus(a + self.w[p + "dt_bias"]))[:, None]


class Kda(Delta):
    HEAD_DIM, EXPAND_V = 128, 1.0

    def read_heads(self):
        super().read_heads()
        self.gate_activation = sigmoid

    def log_decay(self, x, p):
        f = self.linear(p + "f_proj.1", self.linear(p + "f_proj.0", x)) + self.w[p + "dt_bias"]
        f = f.reshape(self.v_heads, self.dk)
        rate = np.exp(self.w[p + "A_log"])[:, None] if p + "A_log" in self.w else 1.0  # absent: with a lower bound only
        bound = self.get(None, "lower_bound")
        return -rate * softplus(f) if bound is None else bound * sigmoid(rate * f)

    def gate(self, x, p):
        return self.linear(p + "g_proj.1", self.linear(p + "g_proj.0", x))


MODELS = {"delta_net": DeltaNet, "gated_deltanet": GatedDeltaNet, "kda": Kda}

if __name__ == "__main__":
    linear_reference.main(__doc__, MODELS)
