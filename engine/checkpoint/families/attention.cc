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

int64_t ReadRotaryDims(ConfigReader* reader, int64_t head_dim, double default_part) {
  double part = reader->OptionalNumber({"partial_rotary_factor"}, 1e-6, 1).value_or(default_part);
  const Json* object = reader->Find({"rope_parameters"});
  if (object != nullptr && object->is_object()) {
    const std::string section = absl::StrCat(reader->file_name(), ": rope_parameters");
    ConfigReader own(*object, section);
    part = own.OptionalNumber({"partial_rotary_factor"}, 1e-6, 1).value_or(part);
    reader->Take(own);
  }
  return RotaryDims(reader, head_dim, part);
}

int64_t RotaryDims(ConfigReader* reader, int64_t head_dim, double part) {
  const auto dims = static_cast<int64_t>(static_cast<double>(head_dim) * part);
  if (dims < 2 || dims % 2 != 0) {
    reader->Refuse(absl::StrCat("partial_rotary_factor ", part, " of head_dim ", head_dim, " is ",
                                dims, " channels, must be even and at least 2"));
    return 2;
  }
  return dims;
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
  m.out_gate = {m.q.end(), shape.gated ? m.q.width : 0};
  m.k = {m.out_gate.end(), shape.kv_heads * shape.head_dim};
  m.v = {m.k.end(), shape.kv_heads * shape.head_dim};
  m.in_dim = m.v.end();
  m.out_act = shape.gated ? Act::kSigmoid : Act::kSilu;
  m.q_norm = m.k_norm = shape.qk_norm ? QkNorm::kRms : QkNorm::kNone;
  if (shape.norms_all_heads) m.qk_norm_span = NormSpan::kAll;
  m.qk_norm_eps = shape.qk_norm_eps;
  if (!shape.rope.frequencies.empty()) m.rope = Rope::kTable;
  m.rope_dims = 2 * static_cast<int64_t>(shape.rope.frequencies.size());
  m.rope_scale = shape.rope.scale;
  m.q_scale =
      shape.scale != 0.0f ? shape.scale : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  m.scaled_columns = shape.in_scale != 1.0f || shape.key_scale != 1.0f;
  m.out_scale = shape.out_scale;
  m.window = shape.window;
  m.out_norm.kind = NormKind::kNone;
  return m;
}

AttentionConfig AttentionParts(const AttentionShape& shape) {
  AttentionConfig parts;
  parts.qkv_bias = shape.qkv_bias;
  parts.out_bias = shape.out_bias;
  parts.frequencies = shape.rope.frequencies;
  parts.in_scale = shape.in_scale;
  parts.key_scale = shape.key_scale;
  return parts;
}

std::string AttentionIdentity(const AttentionShape& s) {
  std::string text =
      absl::StrCat(" heads=", s.heads, " kv_heads=", s.kv_heads, " head_dim=", s.head_dim,
                   " window=", s.window, " qk_norm=", s.qk_norm ? s.qk_norm_eps : 0.0f,
                   " qkv_bias=", s.qkv_bias, " out_bias=", s.out_bias, s.rope.identity);
  // Said where they are not what they were when there was no other: a fingerprint stays.
  if (s.norms_all_heads) text += " norms_all_heads";
  if (s.gated) text += " gated";
  if (s.scale != 0.0f) absl::StrAppend(&text, " scale=", s.scale);
  if (s.in_scale != 1.0f) absl::StrAppend(&text, " in_scale=", s.in_scale);
  if (s.key_scale != 1.0f) absl::StrAppend(&text, " key_scale=", s.key_scale);
  if (s.out_scale != 1.0f) absl::StrAppend(&text, " out_scale=", s.out_scale);
  return text;
}

namespace {

// q_proj with a gate has of each head its query and then its gate. Here all queries come first.
std::vector<RowRange> GatedQueryRows(const MixerSpec& m) {
  std::vector<RowRange> order;
  for (int64_t part = 0; part < 2; ++part) {
    for (int64_t head = 0; head < m.q_heads; ++head) {
      order.push_back({(2 * head + part) * m.dk, m.dk});
    }
  }
  return order;
}

Derive Times(float factor) {
  return [factor](std::vector<float> values) {
    for (float& value : values) value *= factor;
    return values;
  };
}

void AddInput(const MixerSpec& m, const AttentionConfig& parts, int64_t hidden,
              TensorScope* scope) {
  using W = MixerWeights;
  const int64_t rows = m.q.width + m.out_gate.width;
  if (m.gated()) {
    scope->AddRows({"q_proj.weight"}, {rows, hidden}, &W::in, GatedQueryRows(m));
  } else {
    scope->Add({"q_proj.weight"}, {rows, hidden}, &W::in);
  }
  scope->Add({"k_proj.weight"}, {m.k.width, hidden}, &W::in);
  scope->Add({"v_proj.weight"}, {m.v.width, hidden}, &W::in);
  if (m.scaled_columns) {
    const float all = parts.in_scale;
    scope->AddRuns({{rows, all}, {m.k.width, all * parts.key_scale}, {m.v.width, all}},
                   &W::in_scale);
  }
  if (!parts.qkv_bias) return;
  if (m.gated()) {
    scope->AddDerived({"q_proj.bias"}, {rows}, &W::in_bias, rows, TakeRows(GatedQueryRows(m), 1));
  } else {
    scope->Add({"q_proj.bias"}, {rows}, &W::in_bias);
  }
  if (parts.key_scale == 1.0f) {
    scope->Add({"k_proj.bias"}, {m.k.width}, &W::in_bias);
  } else {
    scope->AddDerived({"k_proj.bias"}, {m.k.width}, &W::in_bias, m.k.width, Times(parts.key_scale));
  }
  scope->Add({"v_proj.bias"}, {m.v.width}, &W::in_bias);
}

}  // namespace

void AttentionTensors(const MixerSpec& m, const AttentionConfig& parts, int64_t hidden,
                      TensorScope scope) {
  AddInput(m, parts, hidden, &scope);
  if (m.q_norm == QkNorm::kRms) {
    const bool all = m.qk_norm_span == NormSpan::kAll;
    const auto norm = [&](const char* name, int64_t size, Into into) {
      if (parts.zero_centred_norms) return scope.AddDerived({name}, {size}, into, size, OnePlus());
      scope.Add({name}, {size}, into);
    };
    norm(parts.q_norm, all ? m.q.width : m.dk, &MixerWeights::q_norm);
    norm(parts.k_norm, all ? m.k.width : m.dk, &MixerWeights::k_norm);
  }
  if (m.rope == Rope::kTable) scope.AddValues(parts.frequencies, &MixerWeights::theta);
  const std::string out = parts.out;
  scope.Add({out + ".weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
  if (parts.out_bias) scope.Add({out + ".bias"}, {hidden}, &MixerWeights::out_bias);
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
