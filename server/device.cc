#include "server/device.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace sluice {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> OpenCuda(const ServerOptions& options,
                                                  const ModelSpec& spec) {
  CudaOptions cuda;
  cuda.batch_invariant = options.batch_invariant;
  absl::string_view ordinal = options.device;
  // Everything but cuda:N means the first GPU; flag_table.cc lists the choices.
  if (!absl::ConsumePrefix(&ordinal, "cuda:") || !absl::SimpleAtoi(ordinal, &cuda.device))
    cuda.device = 0;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(cuda);
  if (!backend.ok()) return backend;
  if (absl::Status status = CheckCudaSpec(spec); !status.ok()) return status;
  return backend;
}

}  // namespace

absl::StatusOr<Device> OpenDevice(const ServerOptions& options, const ModelSpec& spec) {
  Device device;
  if (options.device != "cpu") {
    absl::StatusOr<std::unique_ptr<Backend>> cuda = OpenCuda(options, spec);
    if (cuda.ok()) {
      device.backend = *std::move(cuda);
      return device;
    }
    if (options.device != "auto") {
      return absl::Status(cuda.status().code(), absl::StrCat("--device is '", options.device,
                                                             "': ", cuda.status().message()));
    }
    device.why_cpu = std::string(cuda.status().message());
  }
  device.backend = MakeCpuBackend({.threads = options.threads});
  return device;
}

std::string DeviceName(const BackendInfo& info) {
  return info.device.substr(0, info.device.find(' '));
}

}  // namespace sluice
