#!/usr/bin/env python3
"""llama.cpp on this machine, beside sluice_bench: a Llama of the bundled model's size and dtype, random weights.

Same vocabulary, width, layers and MLP as deploy/models/classics-12m (12.25 M parameters in both), bf16. Prints tokens
per second of decode at 1 and 16 sequences and of a prompt; each figure is the median of several runs.

  pip install llama-cpp-python gguf numpy
  tests/bench/llama_cpp_peer.py [--threads 2] [--json]
"""
import argparse
import ctypes
import json
import os
import statistics
import tempfile
import time

import gguf
import llama_cpp
import numpy as np

VOCAB, WIDTH, LAYERS, HEADS, MLP = 4096, 384, 6, 6, 1024


def write_model(path):
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(8192)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(MLP)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_rope_dimension_count(WIDTH // HEADS)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def matrix(name, rows, cols):
        x = rng.standard_normal((rows, cols), np.float32) * cols ** -0.5
        bf16 = (x.view(np.uint32) >> 16).astype(np.uint16)
        w.add_tensor(name, bf16.view(np.uint8), raw_shape=(rows, cols * 2), raw_dtype=gguf.GGMLQuantizationType.BF16)

    def ones(name, n):
        w.add_tensor(name, np.ones(n, np.float32))

    matrix("token_embd.weight", VOCAB, WIDTH)  # tied: no output.weight
    ones("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}.weight", WIDTH, WIDTH)
        ones(f"blk.{i}.attn_norm.weight", WIDTH)
        ones(f"blk.{i}.ffn_norm.weight", WIDTH)
        matrix(f"blk.{i}.ffn_gate.weight", MLP, WIDTH)
        matrix(f"blk.{i}.ffn_up.weight", MLP, WIDTH)
        matrix(f"blk.{i}.ffn_down.weight", WIDTH, MLP)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


class Peer:
    def __init__(self, path, threads, sequences):
        self.model = llama_cpp.llama_load_model_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit("llama.cpp refused the model")
        p = llama_cpp.llama_context_default_params()
        p.n_ctx = 4096
        p.n_batch = p.n_ubatch = 2048
        p.n_seq_max = sequences
        p.n_threads = p.n_threads_batch = threads
        self.ctx = llama_cpp.llama_new_context_with_model(self.model, p)
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def decode(self, rows):
        """rows: (token, position, sequence, wants logits)."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            b.token[i] = token
            b.pos[i] = position
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = sequence
            b.logits[i] = logits
        if llama_cpp.llama_decode(self.ctx, b) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_get_logits(self.ctx)  # waits

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)


def decode_rate(path, threads, sequences, steps=128, runs=5):
    peer = Peer(path, threads, sequences)
    rates = []
    for _ in range(runs):
        peer.forget()
        for position in range(8):
            peer.decode([(5 + s, position, s, True) for s in range(sequences)])
        begin = time.perf_counter()
        for step in range(steps):
            peer.decode([((7 * step + s) % VOCAB, 8 + step, s, True) for s in range(sequences)])
        rates.append(steps * sequences / (time.perf_counter() - begin))
    return statistics.median(rates)


def prefill_rate(path, threads, length=2048, runs=5):
    peer = Peer(path, threads, 1)
    rows = [((31 * i) % VOCAB, i, 0, i == length - 1) for i in range(length)]
    rates = []
    for _ in range(runs + 1):  # the first one warms up
        peer.forget()
        begin = time.perf_counter()
        peer.decode(rows)
        rates.append(length / (time.perf_counter() - begin))
    return statistics.median(rates[1:])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "peer.gguf")
        write_model(path)
        out = {
            "version": llama_cpp.__version__,
            "decode_1_tok_s": decode_rate(path, a.threads, 1),
            "decode_16_tok_s": decode_rate(path, a.threads, 16),
            "prefill_2048_tok_s": prefill_rate(path, a.threads),
        }
    if a.json:
        print(json.dumps(out))
    else:
        for name, value in out.items():
            print(f"{name:20} {value if isinstance(value, str) else format(value, '.0f')}")


if __name__ == "__main__":
    main()
