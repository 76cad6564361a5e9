#include "engine/checkpoint/config.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/json_text.h"
#include "engine/checkpoint/tensor_table.h"
#include "kernels/state_table.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxParameters = 1'000'000'000'000;
constexpr int64_t kMaxStateBytes = int64_t{4} << 32;  // of one sequence

absl::StatusOr<Json> ParseConfigObject(absl::string_view json, absl::string_view file_name) {
  return ParseJsonObject(WithSpecialFloats(json), file_name);
}

// "gla", or "one of "gla", "retnet"", as an error says it.
std::string ServedTypes() {
  std::string types;
  for (const Family* family : Families()) {
    absl::StrAppend(&types, types.empty() ? "" : ", ", "\"", family->model_type, "\"");
  }
  return Families().size() == 1 ? types : absl::StrCat("one of ", types);
}

const Family* ReadFamily(ConfigReader* reader) {
  const Json* value = reader->Find({"model_type"});
  if (value == nullptr && reader->Has("ssm_cfg")) return FindFamily("mamba2");
  if (value == nullptr) {
    reader->Refuse(absl::StrCat("model_type is missing, must be ", ServedTypes()));
    return nullptr;
  }
  const std::string* word = value->get_ptr<const std::string*>();
  const Family* family = word == nullptr ? nullptr : FindFamily(*word);
  if (family == nullptr) {
    const char* reason = word == nullptr ? nullptr : WhyNotServed(*word);
    reader->Refuse(absl::StrCat("model_type is ", PrintableValue(*value),
                                reason == nullptr ? "" : absl::StrCat(": ", reason), ", must be ",
                                ServedTypes()));
  }
  return family;
}

// A token's field; a multimodal wrapper that has none leaves it to its text model.
const Json* FindToken(const ConfigReader& reader, const ModelConfig& config, const char* name) {
  const Json* value = reader.Find({name});
  if (value != nullptr || !config.text_section) return value;
  const Json& text = *reader.Find({"text_config"});
  const auto it = text.find(name);
  return it == text.end() ? nullptr : &*it;
}

// The fields' own bounds keep both products below 2^62.
void CheckSizes(const ModelConfig& config, ConfigReader* reader) {
  const int64_t parameters = CountParameters(config);
  if (parameters > kMaxParameters) {
    reader->Refuse(absl::StrCat("the model has ", parameters, " parameters, must be at most ",
                                kMaxParameters));
  }
  const int64_t state = MakeStateTable(config.spec).bytes();
  if (state > kMaxStateBytes) {
    reader->Refuse(absl::StrCat("the state of one sequence has ", state, " bytes, must be at most ",
                                kMaxStateBytes));
  }
}

// The classes' defaults count where the vocabulary has them.
void ReadTokens(ConfigReader* reader, ModelConfig* config) {
  const int64_t vocab = config->spec.vocab;
  if (const Json* bos = FindToken(*reader, *config, "bos_token_id"); bos == nullptr) {
    if (vocab > config->default_bos) config->bos_token_id = config->default_bos;
  } else if (!bos->is_null()) {
    config->bos_token_id = reader->Token("bos_token_id", *bos, vocab);
  }
  if (const Json* eos = FindToken(*reader, *config, "eos_token_id"); eos == nullptr) {
    if (vocab > config->default_eos) config->eos_token_ids = {config->default_eos};
  } else {
    config->eos_token_ids = reader->Tokens("eos_token_id", *eos, vocab);
  }
}

}  // namespace

const char* ModelConfig::model_type() const { return family->model_type; }

namespace {

void ReadConfig(ConfigReader* reader, ModelConfig* config) {
  config->family = ReadFamily(reader);
  if (!reader->status().ok()) return;
  config->family->parse(reader, config);
  if (!reader->status().ok()) return;
  CheckSizes(*config, reader);
  ReadTokens(reader, config);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view file_name,
                                        std::vector<std::string>* refusals) {
  absl::StatusOr<Json> object = ParseConfigObject(json, file_name);
  if (!object.ok()) {
    if (refusals != nullptr) refusals->emplace_back(object.status().message());
    return object.status();
  }
  ConfigReader reader(*object, file_name);
  ModelConfig config;
  ReadConfig(&reader, &config);
  if (refusals != nullptr) *refusals = reader.refusals();
  if (!reader.status().ok()) return reader.status();
  return config;
}

absl::Status ApplyGenerationConfig(absl::string_view json, absl::string_view file_name,
                                   ModelConfig* config) {
  absl::StatusOr<Json> object = ParseConfigObject(json, file_name);
  if (!object.ok()) return object.status();
  ConfigReader reader(*object, file_name);
  const Json* eos = reader.Find({"eos_token_id"});
  if (eos == nullptr || eos->is_null()) return absl::OkStatus();
  std::vector<int32_t> ids = reader.Tokens("eos_token_id", *eos, config->spec.vocab);
  if (reader.status().ok()) config->eos_token_ids = std::move(ids);
  return reader.status();
}

}  // namespace sluice
