#!/usr/bin/env python3
"""Errors against the float64 goldens: FLA's own model in bf16 beside those of cuda_test on the same checkpoints.

  tests/gpu/fla_errors.py ERRORS.json [--first-config] [CHECKPOINT...]

ERRORS.json is what cuda_test writes to $SLUICE_GOLDEN_ERRORS. Needs torch, triton, transformers, safetensors and fla (PyPI:
fla-core and flash-linear-attention 0.5.2) importable, and a GPU. --first-config takes the first of each kernel's
configurations instead of timing them all, which changes no more than an order of summation. Fails where the CUDA
backend's error is more than 1.25 times FLA's.
"""
import argparse
import json
import math
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What FLA loads as it is stored; the other variants are files that it never writes, or dtypes that bf16 is not.
DEFAULT = ["base", "clamp", "gqa", "short_conv", "strong_gates", "tied", "unfused_norm", "wide_head", "relu_gqa_no_gate",
           "gelu_wide_no_gate", "float32", "classics_12m"]
LIMIT = 1.25


def take_first_config():
    from triton.runtime import autotuner
    init = autotuner.Autotuner.__init__

    def patched(self, fn, arg_names, configs, *args, **keywords):
        init(self, fn, arg_names, configs[:1], *args, **keywords)

    autotuner.Autotuner.__init__ = patched


def places(name):
    if name == "classics_12m":
        return ROOT / "deploy/models/classics-12m", ROOT / "tests/goldens/classics-12m.json"
    directory = ROOT / "tests/goldens/variants" / name
    return directory, directory / "golden.json"


def relative_rms(pairs):
    difference = sum(((a - b) ** 2).sum().item() for a, b in pairs)
    return math.sqrt(difference / sum((b ** 2).sum().item() for _, b in pairs))


def load(name):
    import torch
    from fla.models import GLAConfig, GLAForCausalLM
    from safetensors.torch import load_file
    GLAForCausalLM._tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}  # as transformers 5 wants it
    directory, _ = places(name)
    config = GLAConfig(**{k: v for k, v in json.loads((directory / "config.json").read_text()).items()
                          if k not in ("architectures", "model_type", "transformers_version")})
    model = GLAForCausalLM(config)
    missing, unexpected = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    missing = [m for m in missing if not (config.tie_word_embeddings and m == "lm_head.weight")]
    if missing or unexpected:
        raise RuntimeError(f"{name}: tensors do not match: {missing} {unexpected}")
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embeddings.weight
    return model.to("cuda", torch.bfloat16).eval()


def fla_errors(name, long):
    """The logits of the goldens' cases, and of every so many-th token of a long prompt."""
    import torch
    model = load(name)
    pairs = []
    with torch.no_grad():
        for case in json.loads(places(name)[1].read_text())["cases"]:
            ids = torch.tensor([case["ids"]], device="cuda")
            logits = model(input_ids=ids, use_cache=True).logits[0, -1].double().cpu()
            pairs.append((logits, torch.tensor(case["logits"], dtype=torch.float64)))
        logits = model(input_ids=torch.tensor([long["ids"]], device="cuda"), use_cache=True).logits[0].double().cpu()
    every = long["every"]
    rows = torch.tensor(long["logits"], dtype=torch.float64)
    return relative_rms(pairs), relative_rms(list(zip(logits[every - 1::every], rows, strict=True)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("errors", type=pathlib.Path)
    ap.add_argument("--first-config", action="store_true")
    ap.add_argument("checkpoints", nargs="*")
    a = ap.parse_args()
    if a.first_config:
        take_first_config()
    ours = json.loads(a.errors.read_text())
    print("relative RMS of logits against float64: the goldens; against the CPU backend: every 16th of 4,096 tokens")
    print(f"{'':<27} {'FLA bf16':>9} {'prompt':>9} {'decode':>9} {'ratio':>6}   {'FLA, 4096':>9} {'ours':>9} {'ratio':>6}")
    worst, compared = 0.0, set(a.checkpoints or DEFAULT)
    for name in a.checkpoints or DEFAULT:
        try:
            fla, fla_long = fla_errors(name, ours[name]["4096"])
        except Exception as error:  # noqa: BLE001  (whatever FLA's model makes of the checkpoint)
            print(f"{name:<27} FLA does not run it: {type(error).__name__}: {str(error).splitlines()[0][:80]}", flush=True)
            compared.discard(name)
            continue
        prompt, decode = (ours[name][path]["golden"] for path in ("prompt", "decode"))
        # A golden has six rows, and one of them can be most of the error: both paths are taken together.
        ratio, ratio_long = math.hypot(prompt, decode) / math.sqrt(2) / fla, ours[name]["4096"]["cpu"] / fla_long
        worst = max(worst, ratio, ratio_long)
        print(f"{name:<27} {fla:>9.2e} {prompt:>9.2e} {decode:>9.2e} {ratio:>6.2f}   {fla_long:>9.2e} "
              f"{ours[name]['4096']['cpu']:>9.2e} {ratio_long:>6.2f}", flush=True)
    good = worst <= LIMIT and len(compared) >= 3
    print(f"worst ratio of {len(compared)} checkpoints {worst:.2f}, limit {LIMIT}: {'good' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
