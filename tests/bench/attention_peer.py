"""The prompt mixer's peer on the same GPU: causal PyTorch attention at equal width, 16,384 tokens in all."""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

TOKENS, HEADS, WIDTH = 16384, 16, 128


def median_us(run, repeats=20):
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times)[repeats // 2]


print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}: us of one layer's causal attention")
print(f"{'L':>6} {'flash':>9} {'cudnn':>9}")
for length in (1024, 2048, 4096, 8192, 16384):
    q, k, v = (torch.randn(TOKENS // length, HEADS, length, WIDTH, device="cuda", dtype=torch.bfloat16)
               for _ in range(3))
    row = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(backend):
            row.append(median_us(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)))
    print(f"{length:>6} {row[0]:>9.0f} {row[1]:>9.0f}")
