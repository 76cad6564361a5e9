#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cores.h"
#include "kernels/cuda/coverage.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/step_runner.h"
#include "kernels/state_table.h"

namespace sluice {
namespace {

// Shared memory of a block, on Hopper and on the smallest of the others (sm_86).
constexpr size_t kHopperSharedBytes = 227 * 1024, kSharedBytes = 99 * 1024;

// False if some kernel would move 16 bytes at a time from where a slot's part does not begin at 16
// bytes: layers with heads of odd widths move all that follows them.
bool PartsAreAligned(const ModelSpec& spec) {
  constexpr int64_t kLine = 16;
  bool wide = false;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    wide |= mixer.core != Core::kSoftmax && (FusedGla(mixer) || !PlainOnCuda(mixer));
  });
  const StateTable table = MakeStateTable(spec);
  bool aligned = table.bytes() % kLine == 0;
  for (const StatePart& part : table.parts()) aligned &= part.offset % kLine == 0;
  return aligned || !wide;
}

}  // namespace

absl::Status CheckCudaSpec(const ModelSpec& spec) {
  if (absl::Status status = CheckSpec(DeviceKind::kCuda, spec); !status.ok()) return status;
  if (!PartsAreAligned(spec)) {
    return absl::InvalidArgumentError(
        "cuda: a softmax layer's heads are no multiples of 8 beside other layers' that are");
  }
  size_t bytes = 0;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    if (FusedGla(mixer)) {
      bytes = std::max(bytes, cuda::GlaDecodeSharedBytes(cuda::StepRunner::GlaArgs(mixer)));
    } else if (mixer.core == Core::kLinear) {
      cuda::LinearArgs args;
      args.out_heads = static_cast<int32_t>(mixer.heads());
      args.state_heads = static_cast<int32_t>(mixer.state_heads);
      args.dk = static_cast<int32_t>(mixer.dk);
      args.decay = mixer.decay == Decay::kKey ? cuda::LinearDecay::kKey : cuda::LinearDecay::kNone;
      bytes = std::max(bytes, cuda::LinearDecodeSharedBytes(args));
    }
  });
  const size_t most = cuda::HasHopperCode() ? kHopperSharedBytes : kSharedBytes;
  if (bytes > most) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: a kv head's query heads and dk need ",
                                                   bytes, " bytes of shared memory, at most ", most,
                                                   " are there"));
  }
  return absl::OkStatus();
}

}  // namespace sluice
