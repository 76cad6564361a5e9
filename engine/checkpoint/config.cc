#include "engine/checkpoint/config.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxParameters = 1'000'000'000'000;
constexpr int64_t kMaxStateElements = int64_t{1} << 32;  // of one sequence
constexpr size_t kMaxEosTokens = 64;

// The fields as the file has them; the initial values are GLAConfig's defaults, 0 stands for null.
struct RawConfig {
  int64_t hidden_size = 2048;
  int64_t num_hidden_layers = 24;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 0;
  int64_t intermediate_size = 0;
  int64_t vocab_size = 32000;
  int64_t conv_size = 4;
  int64_t max_position_embeddings = 2048;
  double expand_k = 0.5;
  double expand_v = 1.0;
  double hidden_ratio = 4.0;
  double norm_eps = 1e-6;
  double clamp_min = 1.0;  // above 0: null
  bool use_short_conv = false;
  bool use_output_gate = true;
  bool elementwise_affine = true;
  bool tie_word_embeddings = false;
  bool use_gk = true;
  bool use_gv = false;
  bool share_conv_kernel = false;
};

template <typename T>
struct Field {
  const char* name;
  const char* old_name;  // read where `name` is missing
  T RawConfig::*member;
  T min;
  T max;
  bool nullable;  // null leaves the default
};

constexpr Field<int64_t> kIntegers[] = {
    {"hidden_size", "d_model", &RawConfig::hidden_size, 1, 65536, false},
    {"num_hidden_layers", nullptr, &RawConfig::num_hidden_layers, 1, 1024, false},
    {"num_heads", nullptr, &RawConfig::num_heads, 1, 1024, false},
    {"num_kv_heads", nullptr, &RawConfig::num_kv_heads, 1, 1024, true},
    {"intermediate_size", nullptr, &RawConfig::intermediate_size, 1, 1 << 20, true},
    {"vocab_size", nullptr, &RawConfig::vocab_size, 1, 1 << 24, false},
    {"conv_size", nullptr, &RawConfig::conv_size, 1, 64, false},
    {"max_position_embeddings", nullptr, &RawConfig::max_position_embeddings, 1, int64_t{1} << 40,
     true},
};

constexpr Field<double> kNumbers[] = {
    {"expand_k", nullptr, &RawConfig::expand_k, 1e-6, 64, false},
    {"expand_v", nullptr, &RawConfig::expand_v, 1e-6, 64, false},
    {"hidden_ratio", nullptr, &RawConfig::hidden_ratio, 1e-6, 16, true},
    {"norm_eps", "rms_norm_eps", &RawConfig::norm_eps, 1e-30, 1, false},
    // A log gate above 0 would let the state grow without bound.
    {"clamp_min", nullptr, &RawConfig::clamp_min, -1e30, 0, true},
};

// min and max: the values that we support.
constexpr Field<bool> kBooleans[] = {
    {"use_short_conv", nullptr, &RawConfig::use_short_conv, false, true, false},
    {"use_output_gate", nullptr, &RawConfig::use_output_gate, false, true, false},
    {"elementwise_affine", nullptr, &RawConfig::elementwise_affine, false, true, false},
    {"tie_word_embeddings", nullptr, &RawConfig::tie_word_embeddings, false, true, false},
    {"use_gk", nullptr, &RawConfig::use_gk, true, true, false},
    {"use_gv", nullptr, &RawConfig::use_gv, false, false, false},
    {"share_conv_kernel", nullptr, &RawConfig::share_conv_kernel, false, true, true},
};

struct NamedFeatureMap {
  const char* name;
  FeatureMap value;
};

constexpr NamedFeatureMap kFeatureMaps[] = {
    {"relu", FeatureMap::kRelu},          {"sigmoid", FeatureMap::kSigmoid},
    {"silu", FeatureMap::kSilu},          {"swish", FeatureMap::kSilu},
    {"gelu", FeatureMap::kGeluTanh},      {"logsigmoid", FeatureMap::kLogSigmoid},
    {"sqrelu", FeatureMap::kSquaredRelu},
};

// Reads fields of one object. The first error stays and later reads do nothing.
class Reader {
 public:
  Reader(const Json& object, absl::string_view file_name)
      : object_(object), file_name_(file_name) {}

  const absl::Status& status() const { return status_; }

  void Refuse(absl::string_view message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(file_name_, ": ", message));
  }

  // null when the field is missing.
  const Json* Find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }

  template <typename T>
  void Read(const Field<T>& field, RawConfig* raw) {
    const char* name = field.name;
    const Json* value = Find(name);
    if (value == nullptr && field.old_name != nullptr) {
      name = field.old_name;
      value = Find(name);
    }
    if (value == nullptr || (field.nullable && value->is_null())) return;
    if (!Convert(*value, field.min, field.max, &(raw->*field.member))) {
      Refuse(absl::StrCat(name, " is ", PrintableValue(*value), ", must be ",
                          Rule(field.min, field.max)));
    }
  }

  // `allowed` in words; a missing field is fine, null only where `nullable`.
  template <typename Accept>
  void ReadWord(const char* name, bool nullable, absl::string_view allowed, Accept accept) {
    const Json* value = Find(name);
    if (value == nullptr || (nullable && value->is_null())) return;
    const std::string* word = value->get_ptr<const std::string*>();
    if (word == nullptr || !accept(*word)) {
      Refuse(absl::StrCat(name, " is ", PrintableValue(*value), ", must be ", allowed));
    }
  }

  void RequireNull(const char* name, absl::string_view what) {
    const Json* value = Find(name);
    if (value == nullptr || value->is_null() || (value->is_array() && value->empty())) return;
    Refuse(absl::StrCat(name, " is ", PrintableValue(*value), ", must be null: ", what,
                        " are not supported"));
  }

  // A token id, below `vocab`.
  std::optional<int32_t> Token(const char* name, const Json& value, int64_t vocab) {
    int64_t id = 0;
    if (Convert(value, int64_t{0}, vocab - 1, &id)) return static_cast<int32_t>(id);
    Refuse(absl::StrCat(name, " is ", PrintableValue(value), ", must be ",
                        Rule(int64_t{0}, vocab - 1)));
    return std::nullopt;
  }

  // One id or a list of them; null is none.
  std::vector<int32_t> Tokens(const char* name, const Json& value, int64_t vocab) {
    std::vector<int32_t> ids;
    if (value.is_null()) return ids;
    if (!value.is_array()) {
      if (const auto id = Token(name, value, vocab)) ids.push_back(*id);
      return ids;
    }
    if (value.size() > kMaxEosTokens) {
      Refuse(
          absl::StrCat(name, " lists ", value.size(), " tokens, must be at most ", kMaxEosTokens));
      return ids;
    }
    for (const Json& element : value) {
      if (const auto id = Token(name, element, vocab)) ids.push_back(*id);
    }
    return ids;
  }

 private:
  static bool Convert(const Json& value, int64_t min, int64_t max, int64_t* out) {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max))
      return false;
    *out = value.get<int64_t>();
    return *out >= min && *out <= max;
  }
  static bool Convert(const Json& value, double min, double max, double* out) {
    if (!value.is_number()) return false;
    *out = value.get<double>();
    return *out >= min && *out <= max;  // false for a NaN
  }
  static bool Convert(const Json& value, bool min, bool max, bool* out) {
    if (!value.is_boolean()) return false;
    *out = value.get<bool>();
    return *out == min || *out == max;
  }

  static std::string Rule(int64_t min, int64_t max) {
    return absl::StrCat("an integer in [", min, ", ", max, "]");
  }
  static std::string Rule(double min, double max) {
    return absl::StrCat("a number in [", min, ", ", max, "]");
  }
  static std::string Rule(bool min, bool max) {
    if (min != max) return "true or false";
    return min ? "true" : "false";
  }

  const Json& object_;
  const absl::string_view file_name_;
  absl::Status status_;
};

// The words: what kind of model it is, and which functions it applies.
void ReadWords(Reader* reader, ModelShape* shape) {
  if (reader->Find("model_type") == nullptr)
    reader->Refuse("model_type is missing, must be \"gla\"");
  reader->ReadWord("model_type", false, "\"gla\"",
                   [](const std::string& word) { return word == "gla"; });
  reader->ReadWord("hidden_act", false, "\"swish\" or \"silu\"",
                   [](const std::string& word) { return word == "swish" || word == "silu"; });
  reader->ReadWord("attn_mode", false, "\"chunk\", \"fused_chunk\" or \"fused_recurrent\"",
                   [](const std::string& word) {
                     return word == "chunk" || word == "fused_chunk" || word == "fused_recurrent";
                   });
  reader->ReadWord(
      "feature_map", true,
      "null, \"relu\", \"sigmoid\", \"logsigmoid\", \"silu\", \"swish\", \"sqrelu\" or \"gelu\"",
      [shape](const std::string& word) {
        for (const NamedFeatureMap& map : kFeatureMaps) {
          if (word != map.name) continue;
          shape->feature_map = map.value;
          return true;
        }
        return false;
      });
}

RawConfig ReadRaw(Reader* reader) {
  RawConfig raw;
  for (const auto& field : kIntegers) reader->Read(field, &raw);
  for (const auto& field : kNumbers) reader->Read(field, &raw);
  for (const auto& field : kBooleans) reader->Read(field, &raw);
  reader->RequireNull("attn", "softmax attention layers");
  reader->RequireNull("attnres_block_size", "attention residuals");
  reader->RequireNull("quantization_config", "quantized weights");
  if (raw.share_conv_kernel && raw.use_short_conv) {
    reader->Refuse(
        "share_conv_kernel is true, must be false: one convolution for q, k and v is not "
        "supported");
  }
  return raw;
}

// Columns per head of a projection that `expand` times as wide as the model.
int64_t PerHead(const char* name, double expand, const RawConfig& raw, Reader* reader) {
  const auto width = static_cast<int64_t>(static_cast<double>(raw.hidden_size) * expand);
  if (width < raw.num_heads || width % raw.num_heads != 0) {
    reader->Refuse(absl::StrCat("hidden_size ", raw.hidden_size, " times ", name, " ", expand,
                                " is ", width, ", must be a multiple of num_heads ",
                                raw.num_heads));
  }
  return width / raw.num_heads;
}

// GLAConfig's default: two thirds of hidden_ratio times the width, rounded up to a multiple of 256.
int64_t DefaultIntermediate(const RawConfig& raw) {
  const auto width =
      static_cast<int64_t>(static_cast<double>(raw.hidden_size) * raw.hidden_ratio * 2 / 3);
  return (width + 255) / 256 * 256;
}

void FillShape(const RawConfig& raw, Reader* reader, ModelShape* shape) {
  shape->vocab = raw.vocab_size;
  shape->layers = raw.num_hidden_layers;
  shape->hidden = raw.hidden_size;
  shape->heads = raw.num_heads;
  shape->kv_heads = raw.num_kv_heads == 0 ? raw.num_heads : raw.num_kv_heads;
  if (shape->heads % shape->kv_heads != 0) {
    reader->Refuse(absl::StrCat("num_kv_heads is ", shape->kv_heads, ", must divide num_heads ",
                                shape->heads));
  }
  shape->dk = PerHead("expand_k", raw.expand_k, raw, reader);
  shape->dv = PerHead("expand_v", raw.expand_v, raw, reader);
  shape->intermediate =
      raw.intermediate_size == 0 ? DefaultIntermediate(raw) : raw.intermediate_size;
  shape->conv_size = raw.use_short_conv ? raw.conv_size : 0;
  shape->output_gate = raw.use_output_gate;
  shape->clamp_log_gate = raw.clamp_min <= 0;
  shape->log_gate_min = shape->clamp_log_gate ? static_cast<float>(raw.clamp_min) : 0.0f;
  shape->norm_eps = static_cast<float>(raw.norm_eps);
  if (shape->intermediate < 1) {
    reader->Refuse(absl::StrCat("hidden_ratio ", raw.hidden_ratio, " is too small for hidden_size ",
                                raw.hidden_size));
  }
}

// The fields' own bounds keep both products below 2^62.
void CheckSizes(const ModelConfig& config, Reader* reader) {
  const ModelShape& s = config.shape;
  const int64_t parameters = CountParameters(s, config.head_norm_affine, !config.tied);
  if (parameters > kMaxParameters) {
    reader->Refuse(absl::StrCat("the model has ", parameters, " parameters, must be at most ",
                                kMaxParameters));
  }
  const int64_t state = s.layers * s.kv_heads * s.dk * s.dv +
                        s.layers * s.conv_size * (s.q_dim() + s.k_dim() + s.v_dim());
  if (state > kMaxStateElements) {
    reader->Refuse(absl::StrCat("the state of one sequence has ", state,
                                " elements, must be at most ", kMaxStateElements));
  }
}

// GLAConfig's defaults count where the vocabulary has them.
void ReadTokens(Reader* reader, ModelConfig* config) {
  const int64_t vocab = config->shape.vocab;
  if (const Json* bos = reader->Find("bos_token_id"); bos == nullptr) {
    if (vocab > 1) config->bos_token_id = 1;
  } else if (!bos->is_null()) {
    config->bos_token_id = reader->Token("bos_token_id", *bos, vocab);
  }
  if (const Json* eos = reader->Find("eos_token_id"); eos == nullptr) {
    if (vocab > 2) config->eos_token_ids = {2};
  } else {
    config->eos_token_ids = reader->Tokens("eos_token_id", *eos, vocab);
  }
}

}  // namespace

int64_t CountParameters(const ModelShape& s, bool head_norm_affine, bool lm_head) {
  const int64_t mixer = s.mixer_in_dim() * s.hidden + s.k_dim() * (s.gate_rank + 1) +
                        s.conv_size * (s.q_dim() + s.k_dim() + s.v_dim()) +
                        (head_norm_affine ? s.dv : 0) + s.hidden * s.out_dim();
  const int64_t layer = 2 * s.hidden + mixer + 3 * s.intermediate * s.hidden;
  return (lm_head ? 2 : 1) * s.vocab * s.hidden + s.layers * layer + s.hidden;
}

absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view file_name) {
  absl::StatusOr<Json> object = ParseJsonObject(json, file_name);
  if (!object.ok()) return object.status();
  Reader reader(*object, file_name);
  ModelConfig config;
  ReadWords(&reader, &config.shape);
  const RawConfig raw = ReadRaw(&reader);
  if (!reader.status().ok()) return reader.status();

  FillShape(raw, &reader, &config.shape);
  config.tied = raw.tie_word_embeddings;
  config.head_norm_affine = raw.elementwise_affine;
  config.max_position_embeddings = raw.max_position_embeddings;
  if (!reader.status().ok()) return reader.status();

  CheckSizes(config, &reader);
  ReadTokens(&reader, &config);
  if (!reader.status().ok()) return reader.status();
  return config;
}

absl::Status ApplyGenerationConfig(absl::string_view json, absl::string_view file_name,
                                   ModelConfig* config) {
  absl::StatusOr<Json> object = ParseJsonObject(json, file_name);
  if (!object.ok()) return object.status();
  Reader reader(*object, file_name);
  const Json* eos = reader.Find("eos_token_id");
  if (eos == nullptr || eos->is_null()) return absl::OkStatus();
  std::vector<int32_t> ids = reader.Tokens("eos_token_id", *eos, config->shape.vocab);
  if (reader.status().ok()) config->eos_token_ids = std::move(ids);
  return reader.status();
}

}  // namespace sluice
