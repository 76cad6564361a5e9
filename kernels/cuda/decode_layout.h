// How the decode mixer divides a state among blocks, and what a block keeps in shared memory.
// Without CUDA's headers: whether a shape fits is asked also where there is no GPU.
#ifndef SLUICE_KERNELS_CUDA_DECODE_LAYOUT_H_
#define SLUICE_KERNELS_CUDA_DECODE_LAYOUT_H_

namespace sluice::cuda {

inline constexpr int kDecodeThreads = 256;
inline constexpr int kDecodeWarps = kDecodeThreads / 32;
inline constexpr int kDecodeTile = 64;  // columns of the state
inline constexpr int kMaxCluster = 8;

inline constexpr int DecodeTiles(int dv) { return (dv + kDecodeTile - 1) / kDecodeTile; }
inline constexpr int DecodeClusterSize(int dv) {
  return DecodeTiles(dv) < kMaxCluster ? DecodeTiles(dv) : kMaxCluster;
}

struct DecodeShared {  // offsets in floats
  int q, k, alpha, v, red, o, squares, total;
};

// `groups`: query heads of a kv head.
inline constexpr DecodeShared DecodeSharedLayout(int groups, int dk, int dv, int cluster) {
  const int tiles = (DecodeTiles(dv) + cluster - 1) / cluster;
  DecodeShared s = {};
  s.k = s.q + groups * dk;
  s.alpha = s.k + dk;
  s.v = s.alpha + dk;
  s.red = s.v + kDecodeTile;
  s.o = s.red + kDecodeWarps * kDecodeTile;
  s.squares = s.o + groups * tiles * kDecodeTile;
  s.total = s.squares + groups * kMaxCluster;
  return s;
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_DECODE_LAYOUT_H_
