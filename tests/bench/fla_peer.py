#!/usr/bin/env python3
"""The peer on the same GPU: flash-linear-attention (PyTorch, Triton) at the 1.3B shape, and PyTorch attention of equal width.

  tests/bench/fla_peer.py [--warm FILE --go FILE] [decode] [prefill] [attention] [model]     default: all of these
  tests/bench/fla_peer.py relatives [--seconds N]

`relatives` warms a process for each family at once, from a few of each kernel's configurations, and measures them one after
another; after N seconds (150) it gives up those that are still compiling.

Needs torch, triton and transformers, and fla (PyPI: fla-core and flash-linear-attention 0.5.2) importable. A cold machine
compiles and autotunes for minutes; with --go everything is warmed first (then the file of --warm is there), and measured
once the file of --go is.
"""
import argparse
import pathlib
import subprocess
import sys
import threading
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.testing import do_bench

H, K, V = 4, 256, 512
TOKENS = 16384
LENGTHS = (1024, 2048, 4096, 8192, 16384)
BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)


def median_us(run):
    return do_bench(run, warmup=20, rep=100, return_mode="median") * 1e3


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def log_gates(*shape):
    return F.logsigmoid(torch.randn(*shape, device="cuda") + 4) / 16


class Decode:
    """One layer's recurrence with an fp32 state, in a CUDA graph. No gate product, no norm, no output gate."""

    def graph(self, batch):
        from fla.ops.gla import fused_recurrent_gla
        q, k, v = random(batch, 1, H, K), random(batch, 1, H, K), random(batch, 1, H, V)
        g, state = log_gates(batch, 1, H, K), torch.randn(batch, H, V, K, device="cuda")
        run = lambda: fused_recurrent_gla(q=q, k=k, v=v, gk=g, initial_state=state, output_final_state=True,
                                          state_v_first=True)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph

    def warm(self):
        for batch in BATCHES:
            self.graph(batch)

    def measure(self):
        print("FLA fused_recurrent_gla, one token a sequence, us: " +
              ", ".join(f"B={b} {median_us(self.graph(b).replay):.1f}" for b in BATCHES), flush=True)


class Prefill:
    """One layer's chunkwise form, with its final states. No gate product, no norm, no output gate."""

    def run(self, length):
        from fla.ops.gla import chunk_gla
        batch = TOKENS // length
        q, k, v = random(batch, length, H, K), random(batch, length, H, K), random(batch, length, H, V)
        g = log_gates(batch, length, H, K)
        return lambda: chunk_gla(q=q, k=k, v=v, g=g, output_final_state=True)

    def warm(self):
        for length in LENGTHS:
            self.run(length)()

    def measure(self):
        print(f"FLA chunk_gla, {TOKENS} tokens in all, us: " +
              ", ".join(f"L={n} {median_us(self.run(n)):.0f}" for n in LENGTHS), flush=True)


class Relatives:
    """The chunkwise cores of GLA's relatives at their 1.3B shapes, where FLA has one: (heads, keys, values) of each. Mamba-2's
    keys and queries, which its heads share, are repeated for every head, as FLA's operator wants them. No norm, no gate."""

    SHAPES = {"retnet": (8, 256, 512), "mamba2": (64, 128, 64), "hgrn2": (16, 128, 128), "transnormer": (16, 128, 128),
              "linear_attn": (4, 512, 512), "delta_net": (16, 128, 128), "gated_delta": (8, 256, 256), "kda": (16, 128, 128)}
    DELTA = ("delta_net", "gated_delta", "kda")
    LENGTHS = (1024, 16384)
    CONFIGURATIONS = 8  # of each kernel: its authors try up to 48, which takes minutes to compile

    def __init__(self, seconds):
        self.seconds = seconds

    @classmethod
    def few_configurations(cls):
        from triton.runtime import autotuner
        init = autotuner.Autotuner.__init__

        def patched(self, fn, arg_names, configs, *args, **keywords):
            likely = [c for c in configs if c.num_warps in (2, 4) and c.num_stages in (2, 3)] or configs
            init(self, fn, arg_names, likely[::max(1, len(likely) // cls.CONFIGURATIONS)], *args, **keywords)

        autotuner.Autotuner.__init__ = patched

    @classmethod
    def operator(cls, name, length):
        from fla.ops import delta_rule, gated_delta_rule, gla, kda, lightning_attn, linear_attn, retention, simple_gla
        module, operator, extra = {
            "retnet": (retention, "retention", {}), "mamba2": (simple_gla, "simple_gla", {"scale": 1.0}),
            "hgrn2": (gla, "gla", {}), "transnormer": (lightning_attn, "lightning_attn", {"layer_idx": 3, "num_layers": 24}),
            "linear_attn": (linear_attn, "linear_attn", {"normalize": False}), "delta_net": (delta_rule, "delta_rule", {}),
            "gated_delta": (gated_delta_rule, "gated_delta_rule", {}), "kda": (kda, "kda", {})}[name]
        heads, keys, values = cls.SHAPES[name]
        batch = TOKENS // length
        inputs = {"q": random(batch, length, heads, keys), "k": random(batch, length, heads, keys),
                  "v": random(batch, length, heads, values), "output_final_state": True, **extra}
        if name in ("hgrn2", "mamba2", "gated_delta", "kda"):
            inputs["g"] = log_gates(*((batch, length, heads, keys) if name in ("hgrn2", "kda") else (batch, length, heads)))
        if name in cls.DELTA:
            inputs["q"], inputs["k"] = (F.normalize(inputs[x].float(), dim=-1).bfloat16() for x in "qk")
            inputs["beta"] = random(batch, length, heads).sigmoid()
        run = getattr(module, f"chunk_{operator}")
        return lambda: run(**inputs)

    @classmethod
    def of_family(cls, name):
        """A child: warms, says so, and measures when it is told to."""
        cls.few_configurations()
        runs = {length: cls.operator(name, length) for length in cls.LENGTHS}
        for run in runs.values():
            run()
        torch.cuda.synchronize()
        print("warm", flush=True)
        input()
        print(f"FLA {name} {'x'.join(map(str, cls.SHAPES[name]))}, {TOKENS} tokens in all, us: " +
              ", ".join(f"L={length} {median_us(run):.0f}" for length, run in runs.items()), flush=True)

    def run(self):
        begin = time.time()
        children = {name: subprocess.Popen([sys.executable, __file__, "--family", name], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in self.SHAPES}
        deadline = threading.Timer(self.seconds, lambda: [c.kill() for c in children.values()])
        deadline.start()
        warm = {name for name, child in children.items() if child.stdout.readline().strip() == "warm"}
        deadline.cancel()
        print(f"(relatives: {len(warm)} of {len(children)} are warm after {time.time() - begin:.0f} s)", flush=True)
        for name, child in children.items():
            out, errors = child.communicate("go\n" if child.poll() is None else None)
            last = errors.strip().splitlines()[-1:] or ["still compiling"]
            print(out.strip() or f"FLA {name}: {last[0][:100]}", flush=True)


class Attention:
    """Causal attention, 16 heads of 128."""

    def warm(self):
        pass

    def measure(self):
        for name, backend in (("FlashAttention-2", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            row = []
            for length in LENGTHS:
                x = [random(TOKENS // length, 16, length, 128) for _ in range(3)]
                with sdpa_kernel(backend):
                    us = median_us(lambda: F.scaled_dot_product_attention(*x, is_causal=True))
                row.append(f"L={length} {us:.0f}")
            print(f"{name}, {TOKENS} tokens in all, us: " + ", ".join(row), flush=True)


class Model:
    """The whole 1.3B model with random weights, as its users run it."""

    def __init__(self):
        from fla.models import GLAConfig, GLAForCausalLM
        GLAForCausalLM._tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}  # as transformers 5 wants it
        config = GLAConfig(hidden_size=2048, num_hidden_layers=24, num_heads=4, vocab_size=32000)
        with torch.device("cuda"):
            self.model = GLAForCausalLM(config).to(torch.bfloat16).eval()

    def prefill(self, batch, length):
        ids = torch.randint(0, 32000, (batch, length), device="cuda")
        return lambda: self.model(input_ids=ids, logits_to_keep=1, use_cache=True)

    def decode_ms(self, batch, steps=23):
        ids = torch.randint(0, 32000, (batch, 16), device="cuda")
        cache = self.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        for i in range(steps):
            if i == 3:
                torch.cuda.synchronize()
                begin = time.time()
            cache = self.model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True,
                               logits_to_keep=1).past_key_values
        torch.cuda.synchronize()
        return (time.time() - begin) / (steps - 3) * 1e3

    def warm(self):
        for batch, length in ((8, 2048), (1, 16384)):
            self.prefill(batch, length)()
        self.decode_ms(1, 4)

    def measure(self):
        for batch, length in ((8, 2048), (1, 16384)):
            us = median_us(self.prefill(batch, length))
            print(f"FLA 1.3B, prompts {batch} x {length}: {batch * length / us * 1e6:.0f} tok/s", flush=True)
        print("FLA 1.3B, ms of a decode step: " +
              ", ".join(f"B={b} {self.decode_ms(b):.2f}" for b in (1, 8, 32, 256)), flush=True)


PARTS = {"decode": Decode, "prefill": Prefill, "attention": Attention, "model": Model}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--warm", type=pathlib.Path)
    ap.add_argument("--go", type=pathlib.Path)
    ap.add_argument("--seconds", type=float, default=150.0)
    ap.add_argument("--family", help=argparse.SUPPRESS)
    ap.add_argument("parts", nargs="*", metavar="part", help=", ".join([*PARTS, "relatives"]))
    a = ap.parse_args()
    with torch.no_grad():
        if a.family:
            return Relatives.of_family(a.family)
        if a.parts == ["relatives"]:
            return Relatives(a.seconds).run()
        parts = [(name, PARTS[name]()) for name in a.parts or PARTS]
        for name, part in parts:
            begin = time.time()
            part.warm()
            torch.cuda.synchronize()
            print(f"({name} is warm after {time.time() - begin:.0f} s)", flush=True)
        torch.cuda.empty_cache()
        if a.warm:
            a.warm.touch()
        while a.go and not a.go.exists():
            time.sleep(0.2)
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}", flush=True)
        for _, part in parts:
            part.measure()


if __name__ == "__main__":
    main()
