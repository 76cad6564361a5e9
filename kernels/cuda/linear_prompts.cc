#include "kernels/cuda/layout.h"
#include "kernels/cuda/linear.h"

namespace sluice::cuda {
namespace {

// Kernels are launched until one fails.
class Launches {
 public:
  template <class Launch>
  Launches& Then(Launch launch) {
    if (error_ == cudaSuccess) error_ = launch();
    return *this;
  }
  cudaError_t error() const { return error_; }

 private:
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

MixerLaunch AsMixerArgs(const LinearArgs& a, const LinearBack& back) {
  MixerLaunch m;
  m.meta = a.meta;
  m.log_decay = a.log_decay;
  m.min_log_decay2 = kMinLogDecay2;
  m.states = a.states;
  m.slot_stride = a.slot_stride;
  m.heads = a.out_heads;
  m.kv_heads = a.state_heads;
  m.dk = a.dk;
  m.dv = a.dv;
  m.k_offset = a.k_offset;
  m.v_offset = a.v_offset;
  m.out = back.out;
  m.out_stride = back.out_stride;
  return m;
}

cudaError_t LaunchLinearPrompts(const LinearArgs& args, const LinearBack& back,
                                const LinearBuffers& buffers, std::span<const ChunkRange> waves,
                                int first, int rows, cudaStream_t stream) {
  if (args.plain) return LaunchPlainPrompts(args, back, buffers, waves, first, rows, stream);
  const MixerLaunch mixer = AsMixerArgs(args, back);
  ChunkBuffers chunk = buffers.chunk;
  chunk.conv = const_cast<__nv_bfloat16*>(args.prompt_front);  // read in place of the projection
  chunk.conv_stride = args.front_stride;
  Launches launches;
  for (const ChunkRange& wave : waves) {
    if (args.decay == LinearDecay::kKey) {
      launches.Then([&] { return LaunchGlaScores(mixer, chunk, wave, stream); })
          .Then([&] { return LaunchGlaSpanSums(mixer, chunk, wave, stream); })
          .Then([&] { return LaunchGlaScan(mixer, chunk, wave, stream); })
          .Then([&] { return LaunchGlaChunks(mixer, chunk, wave, stream); });
      continue;
    }
    launches.Then([&] { return LaunchLinearScores(args, buffers, wave, stream); })
        .Then([&] { return LaunchLinearNormaliser(args, buffers, wave, stream); })
        .Then([&] { return LaunchLinearSpanSums(args, buffers, wave, stream); })
        .Then([&] { return LaunchLinearScan(args, buffers, wave, stream); })
        .Then([&] {
          return LaunchLinearChunks(args, buffers, back.out, back.out_stride, wave, stream);
        });
  }
  launches.Then([&] { return LaunchLinearBack(args, back, buffers, first, rows, stream); });
  return launches.error();
}

}  // namespace sluice::cuda
