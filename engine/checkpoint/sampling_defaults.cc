#include "engine/checkpoint/sampling_defaults.h"

#include "engine/checkpoint/checkpoint_file.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

constexpr char kFile[] = "generation_config.json";
constexpr int64_t kMaxBytes = 1 << 20;
// The ranges of generate.proto. The smallest value above 0 that a float holds stands for it.
constexpr double kAboveZero = 1e-37;
constexpr int64_t kMaxTopK = 1 << 24;

}  // namespace

absl::StatusOr<SamplingDefaults> ParseSamplingDefaults(absl::string_view json,
                                                       absl::string_view file_name) {
  const absl::StatusOr<nlohmann::json> object = ParseJsonObject(WithSpecialFloats(json), file_name);
  if (!object.ok()) return object.status();
  ConfigReader reader(*object, file_name);
  const auto number = [&](const char* name, double min, double max) -> std::optional<float> {
    const std::optional<double> found = reader.OptionalNumber({name}, min, max);
    if (!found.has_value()) return std::nullopt;
    return static_cast<float>(*found);
  };
  SamplingDefaults out;
  out.temperature = number("temperature", 0, 100);
  out.top_p = number("top_p", kAboveZero, 1);
  out.min_p = number("min_p", 0, 1);
  out.typical_p = number("typical_p", kAboveZero, 1);
  out.repetition_penalty = number("repetition_penalty", kAboveZero, 100);
  if (const std::optional<int64_t> top_k = reader.OptionalInteger({"top_k"}, -1, kMaxTopK)) {
    out.top_k = static_cast<int32_t>(*top_k < 0 ? 0 : *top_k);
  }
  if (!reader.OptionalBoolean({"do_sample"}).value_or(true)) out.temperature = 0.0f;
  if (!reader.status().ok()) return reader.status();
  return out;
}

absl::StatusOr<SamplingDefaults> ReadSamplingDefaults(const std::string& dir) {
  const absl::StatusOr<std::string> text = ReadTextFile(dir, kFile, kMaxBytes);
  if (absl::IsNotFound(text.status())) return SamplingDefaults();
  if (!text.ok()) return text.status();
  return ParseSamplingDefaults(*text, kFile);
}

}  // namespace sluice
