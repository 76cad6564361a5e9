#include "engine/checkpoint/families/fla_attention.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

std::vector<int64_t> ReadLayers(ConfigReader* attn, int64_t layers) {
  std::vector<int64_t> read;
  const Json* list = attn->Find({"layers"});
  if (list == nullptr || !list->is_array()) {
    attn->Refuse(absl::StrCat("layers is ", list == nullptr ? "missing" : PrintableValue(*list),
                              ", must be a list of layers"));
    return read;
  }
  for (const Json& layer : *list) {
    if (!layer.is_number_integer() || layer.get<int64_t>() < 0 || layer.get<int64_t>() >= layers) {
      attn->Refuse(absl::StrCat("layers holds ", PrintableValue(layer),
                                ", must hold integers in [0, ", layers - 1, "]"));
      return read;
    }
    read.push_back(layer.get<int64_t>());
  }
  return read;
}

void ReadOne(const Json& object, const std::string& section, int64_t hidden, int64_t layers,
             ConfigReader* reader, FlaAttention* attention) {
  if (!object.is_object()) {
    return reader->Refuse(absl::StrCat("attn is ", PrintableValue(object),
                                       ", must be null, an object or a list of objects"));
  }
  ConfigReader attn(object, section);
  AttentionShape s;
  const std::vector<int64_t> own = ReadLayers(&attn, layers);
  if (!attn.Has("num_heads")) attn.Refuse("num_heads is missing, must be an integer");
  s.heads = attn.Integer({"num_heads"}, 1, 1, 1024);
  s.kv_heads = attn.OptionalInteger({"num_kv_heads"}, 1, 1024).value_or(s.heads);
  s.head_dim = FlaHeadDim(hidden, s.heads, &attn);
  s.qkv_bias = attn.Boolean({"qkv_bias"}, false);
  s.window = attn.OptionalInteger({"window_size"}, 1, 1 << 24).value_or(0);
  const double theta = attn.Number({"rope_theta"}, 10000, 1.0001, 1e15);
  attn.RequireNull("qk_norm", "norms of queries and keys in softmax layers");
  CheckAttention(s, "num_heads", "num_kv_heads", &attn);
  if (attn.status().ok()) s.rope = DefaultRope(s.head_dim, theta);
  for (int64_t layer : own) {
    if (!attention->emplace(layer, s).second) {
      attn.Refuse(absl::StrCat("layers holds ", layer, " twice"));
      break;
    }
  }
  reader->Take(attn);
}

}  // namespace

FlaAttention ReadFlaAttention(ConfigReader* reader, int64_t hidden, int64_t layers,
                              ModelConfig* config) {
  FlaAttention attention;
  if (!reader->Has("attn")) return attention;
  const Json& attn = *reader->Find({"attn"});
  const std::string section = absl::StrCat(reader->file_name(), ": attn");
  if (!attn.is_array()) ReadOne(attn, section, hidden, layers, reader, &attention);
  const size_t refused = reader->refusals().size();
  for (size_t i = 0; attn.is_array() && i < attn.size() && reader->refusals().size() == refused;
       ++i) {
    ReadOne(attn[i], absl::StrCat(section, "[", i, "]"), hidden, layers, reader, &attention);
  }
  for (const auto& [layer, shape] : attention) config->attention[layer] = AttentionParts(shape);
  return attention;
}

void ApplyFlaAttention(const FlaAttention& attention, ModelSpec* spec) {
  for (const auto& [layer, shape] : attention) {
    spec->layers[layer].branches[0].units[0] = AttentionMixer(shape);
  }
}

std::string FlaAttentionIdentity(const FlaAttention& attention) {
  std::string text;
  for (const auto& [layer, shape] : attention) {
    absl::StrAppend(&text, " attn", layer, ":", AttentionIdentity(shape));
  }
  return text;
}

int64_t FlaHeadDim(int64_t hidden, int64_t heads, ConfigReader* reader) {
  if (hidden % heads == 0) return hidden / heads;
  reader->Refuse(absl::StrCat("num_heads is ", heads, ", must divide hidden_size ", hidden));
  return 2;
}

}  // namespace sluice
