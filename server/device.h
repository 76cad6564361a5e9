// Makes the backend that --device asks for.
#ifndef SLUICE_SERVER_DEVICE_H_
#define SLUICE_SERVER_DEVICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/options.h"

namespace sluice {

struct Device {
  std::unique_ptr<Backend> backend;
  std::string why_cpu;  // --device=auto alone: what keeps this model from the GPU; empty on one
};

// "auto" opens the first GPU if this program, this host and the model's spec allow it, else the
// CPU. For "cuda" and "cuda:N" the reason that forbids it is an error of one line.
absl::StatusOr<Device> OpenDevice(const ServerOptions& options, const ModelSpec& spec);

// "cuda:0" of "cuda:0 (NVIDIA H200)".
std::string DeviceName(const BackendInfo& info);

}  // namespace sluice

#endif  // SLUICE_SERVER_DEVICE_H_
