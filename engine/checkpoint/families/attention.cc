#include "engine/checkpoint/families/attention.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"
#include "kernels/mixer_math.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr double kPi = 3.14159265358979323846;
constexpr double kMostTheta = 1e15;

enum class RopeKind : uint8_t { kDefault, kLinear, kLlama3, kYarn };

constexpr NamedValue<RopeKind> kRopeKinds[] = {
    {"default", RopeKind::kDefault},
    {"linear", RopeKind::kLinear},
    {"llama3", RopeKind::kLlama3},
    {"yarn", RopeKind::kYarn},
};

constexpr char kServedKinds[] = "\"default\", \"linear\", \"llama3\" or \"yarn\"";

// By wavelength: long ones are slowed down by `factor`, short ones stay, the others are blended.
void ScaleLlama3(ConfigReader* scaling, RopeTable* table) {
  const double factor = scaling->Number({"factor"}, 8, 1, 1e6);
  const double low = scaling->Number({"low_freq_factor"}, 1, 1e-6, 1e6);
  const double high = scaling->Number({"high_freq_factor"}, 4, 1e-6, 1e6);
  const auto old = static_cast<double>(
      scaling->Integer({"original_max_position_embeddings"}, 8192, 1, int64_t{1} << 40));
  if (high <= low) {
    return scaling->Refuse(
        absl::StrCat("high_freq_factor is ", high, ", must be greater than low_freq_factor ", low));
  }
  for (float& frequency : table->frequencies) {
    const double wave = 2 * kPi / frequency;
    if (wave < old / high) continue;
    const double smooth = (old / wave - low) / (high - low);
    const double blended = wave > old / low
                               ? frequency / factor
                               : (1 - smooth) * frequency / factor + smooth * frequency;
    frequency = static_cast<float>(blended);
  }
  absl::StrAppend(&table->identity, " llama3=", factor, ",", low, ",", high, ",", old);
}

// 0.1 m ln(factor) + 1, which keeps the scores' size as the text grows (arXiv 2309.00071).
double YarnScale(double factor, double m) {
  return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0;
}

double YarnAttention(ConfigReader* scaling, double factor) {
  const auto attention = scaling->OptionalNumber({"attention_factor"}, 1e-6, 1e6);
  const double m = scaling->OptionalNumber({"mscale"}, 0, 1e6).value_or(0);
  const double all = scaling->OptionalNumber({"mscale_all_dim"}, 0, 1e6).value_or(0);
  if (attention.has_value()) return *attention;
  if (m > 0 && all > 0) return YarnScale(factor, m) / YarnScale(factor, all);
  return YarnScale(factor, 1);
}

// A ramp over the pairs, from those that turn often, which stay, to those that turn rarely.
void ScaleYarn(ConfigReader* scaling, int64_t dim, double theta, int64_t max_positions,
               RopeTable* table) {
  const auto given =
      scaling->OptionalInteger({"original_max_position_embeddings"}, 1, int64_t{1} << 40);
  const auto old = static_cast<double>(given.value_or(max_positions));
  const double factor = scaling->OptionalNumber({"factor"}, 1, 1e6)
                            .value_or(std::max(1.0, static_cast<double>(max_positions) / old));
  const double fast = scaling->OptionalNumber({"beta_fast"}, 1e-6, 1e6).value_or(32);
  const double slow = scaling->OptionalNumber({"beta_slow"}, 1e-6, 1e6).value_or(1);
  const double attention = YarnAttention(scaling, factor);
  const auto width = static_cast<double>(dim);
  const auto pair_of = [&](double turns) {
    return width * std::log(old / (turns * 2 * kPi)) / (2 * std::log(theta));
  };
  double low = pair_of(fast), high = pair_of(slow);
  if (scaling->Boolean({"truncate"}, true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  if (high == low) high += 0.001;
  for (size_t i = 0; i < table->frequencies.size(); ++i) {
    float& frequency = table->frequencies[i];
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency = static_cast<float>(frequency / factor * ramp + frequency * (1 - ramp));
  }
  table->scale = static_cast<float>(attention);
  absl::StrAppend(&table->identity, " yarn=", factor, ",", old, ",", low, ",", high, ",",
                  attention);
}

// The kind is called rope_type, before transformers 4.43 type.
RopeKind ReadKind(ConfigReader* scaling) {
  const char* name = scaling->Find({"rope_type"}) != nullptr ? "rope_type" : "type";
  return scaling->Word<RopeKind>(name, RopeKind::kDefault, kRopeKinds, /*nullable=*/true,
                                 kServedKinds);
}

}  // namespace

RopeTable DefaultRope(int64_t dim, double theta) {
  RopeTable table;
  for (int64_t i = 0; i < dim / 2; ++i) {
    table.frequencies.push_back(static_cast<float>(mixer_math::RotaryFrequency(i, dim, theta)));
  }
  table.identity = absl::StrCat(" rope_theta=", theta);
  return table;
}

RopeTable ReadRope(ConfigReader* reader, int64_t dim, double default_theta, int64_t max_positions) {
  const char* name = reader->Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const double theta = reader->Number({"rope_theta"}, default_theta, 1.0001, kMostTheta);
  if (!reader->Has(name)) return DefaultRope(dim, theta);
  const Json& object = *reader->Find({name});
  if (!object.is_object()) {
    reader->Refuse(absl::StrCat(name, " is ", PrintableValue(object), ", must be an object"));
    return DefaultRope(dim, theta);
  }
  const std::string section = absl::StrCat(reader->file_name(), ": ", name);
  ConfigReader scaling(object, section);
  const double own_theta = scaling.Number({"rope_theta"}, theta, 1.0001, kMostTheta);
  RopeTable table = DefaultRope(dim, own_theta);
  switch (ReadKind(&scaling)) {
    case RopeKind::kDefault:
      break;
    case RopeKind::kLinear: {
      const double factor = scaling.Number({"factor"}, 1, 1e-6, 1e6);
      for (float& frequency : table.frequencies) frequency /= static_cast<float>(factor);
      absl::StrAppend(&table.identity, " linear=", factor);
      break;
    }
    case RopeKind::kLlama3:
      ScaleLlama3(&scaling, &table);
      break;
    case RopeKind::kYarn:
      ScaleYarn(&scaling, dim, own_theta, max_positions, &table);
      break;
  }
  reader->Take(scaling);
  return table;
}

MixerSpec AttentionMixer(const AttentionShape& shape) {
  MixerSpec m;
  m.core = Core::kSoftmax;
  m.decay = Decay::kNone;
  m.gate = GateMap::kNone;
  m.q_heads = shape.heads;
  m.k_heads = m.v_heads = m.state_heads = shape.kv_heads;
  m.key_width = m.dk = m.dv = shape.head_dim;
  m.q = {0, shape.heads * shape.head_dim};
  m.k = {m.q.end(), shape.kv_heads * shape.head_dim};
  m.v = {m.k.end(), shape.kv_heads * shape.head_dim};
  m.in_dim = m.v.end();
  m.q_norm = m.k_norm = shape.qk_norm ? QkNorm::kRms : QkNorm::kNone;
  m.qk_norm_eps = shape.qk_norm_eps;
  m.rope = Rope::kTable;
  m.rope_dims = 2 * static_cast<int64_t>(shape.rope.frequencies.size());
  m.rope_scale = shape.rope.scale;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  m.window = shape.window;
  m.out_norm.kind = NormKind::kNone;
  return m;
}

AttentionConfig AttentionParts(const AttentionShape& shape) {
  return {shape.qkv_bias, shape.out_bias, shape.rope.frequencies};
}

std::string AttentionIdentity(const AttentionShape& s) {
  return absl::StrCat(" heads=", s.heads, " kv_heads=", s.kv_heads, " head_dim=", s.head_dim,
                      " window=", s.window, " qk_norm=", s.qk_norm ? s.qk_norm_eps : 0.0f,
                      " qkv_bias=", s.qkv_bias, " out_bias=", s.out_bias, s.rope.identity);
}

void AttentionTensors(const MixerSpec& m, const AttentionConfig& parts, int64_t hidden,
                      TensorScope scope) {
  scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
  scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
  scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
  if (parts.qkv_bias) {
    scope.Add({"q_proj.bias"}, {m.q.width}, &MixerWeights::in_bias);
    scope.Add({"k_proj.bias"}, {m.k.width}, &MixerWeights::in_bias);
    scope.Add({"v_proj.bias"}, {m.v.width}, &MixerWeights::in_bias);
  }
  if (m.q_norm == QkNorm::kRms) {
    scope.Add({"q_norm.weight"}, {m.dk}, &MixerWeights::q_norm);
    scope.Add({"k_norm.weight"}, {m.dk}, &MixerWeights::k_norm);
  }
  scope.AddValues(parts.frequencies, &MixerWeights::theta);
  scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
  if (parts.out_bias) scope.Add({"o_proj.bias"}, {hidden}, &MixerWeights::out_bias);
}

void CheckAttention(const AttentionShape& shape, const char* heads_name, const char* kv_heads_name,
                    ConfigReader* reader) {
  if (shape.heads % shape.kv_heads != 0) {
    reader->Refuse(absl::StrCat(kv_heads_name, " is ", shape.kv_heads, ", must divide ", heads_name,
                                " ", shape.heads));
  }
  if (shape.head_dim % 2 != 0) {
    reader->Refuse(absl::StrCat("the channels of a head (head_dim, or hidden_size by ", heads_name,
                                ") are ", shape.head_dim, ", must be even"));
  }
}

}  // namespace sluice
