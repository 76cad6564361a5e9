// Tells which mixers a device can run, in which revision and on which grid, from the spec alone and
// without the device.
#ifndef SLUICE_KERNELS_CORES_H_
#define SLUICE_KERNELS_CORES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/model_spec.h"

namespace sluice {

enum class DeviceKind : uint8_t { kCpu, kCuda };

// INVALID_ARGUMENT, one line, names the first thing of the model that no build of the device's
// kernels takes. What a block's shared memory holds depends on the GPUs a build is for, and is
// found at a start.
absl::Status CheckSpec(DeviceKind device, const ModelSpec& spec);

// Tokens at whose multiples the model's prompts may be cut.
int32_t PromptGrid(DeviceKind device, const ModelSpec& spec);

// The revisions of the cores that the model needs, as a part of a numerics id: "1", or "1-delta2".
// A core's revision goes up with every change of its bits or of what surrounds it.
std::string CoreRevisions(DeviceKind device, const ModelSpec& spec);

// True if CUDA's fused kernels compute this mixer: gated linear attention as its paper defines it.
bool FusedGla(const MixerSpec& spec);

// True if CUDA's linear or delta core takes this mixer an element at a time: its heads or columns
// are no multiples of the 8 elements that the faster kernels load at once.
bool PlainOnCuda(const MixerSpec& spec);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CORES_H_
