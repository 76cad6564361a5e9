// The safetensors header parser on any bytes: a table it accepts covers the file exactly.

#include <cstddef>
#include <cstdint>

#include "engine/checkpoint/safetensors.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view file(reinterpret_cast<const char*>(data), size);
  const auto file_size = static_cast<int64_t>(size);
  const auto length = sluice::ParseSafetensorsPrefix(
      file.substr(0, sluice::kSafetensorsPrefixBytes), file_size, "f");
  if (!length.ok()) return 0;
  const auto tensors = sluice::ParseSafetensorsHeader(
      file.substr(sluice::kSafetensorsPrefixBytes, *length), file_size, "f");
  if (!tensors.ok()) {
    SLUICE_CHECK(tensors.status().message().find('\n') == absl::string_view::npos);
    return 0;
  }
  int64_t covered = sluice::kSafetensorsPrefixBytes + *length;
  for (const auto& [name, tensor] : *tensors) {
    SLUICE_CHECK(tensor.begin <= tensor.end && tensor.end <= file_size);
    covered += tensor.end - tensor.begin;
  }
  SLUICE_CHECK(covered == file_size);
  return 0;
}
