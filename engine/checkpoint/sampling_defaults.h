// How a checkpoint's makers want it to be sampled, from its generation_config.json.
#ifndef SLUICE_ENGINE_CHECKPOINT_SAMPLING_DEFAULTS_H_
#define SLUICE_ENGINE_CHECKPOINT_SAMPLING_DEFAULTS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// What the file has; none of it is applied by the engine.
struct SamplingDefaults {
  std::optional<float> temperature;  // 0 where do_sample is false
  std::optional<int32_t> top_k;      // 0: off
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> typical_p;
  std::optional<float> repetition_penalty;
};

// INVALID_ARGUMENT names `file_name`, the field and the rule.
absl::StatusOr<SamplingDefaults> ParseSamplingDefaults(absl::string_view json,
                                                       absl::string_view file_name);
// Reads the file in the model directory `dir`; a missing one has nothing.
absl::StatusOr<SamplingDefaults> ReadSamplingDefaults(const std::string& dir);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_SAMPLING_DEFAULTS_H_
