#include "engine/checkpoint/families/llama.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr HfDefaults kLlama = {.vocab = 32000, .intermediate = 11008, .max_positions = 2048};
constexpr HfDefaults kMistral = {
    .vocab = 32000, .intermediate = 14336, .kv_heads = 8, .max_positions = 131072};
constexpr HfDefaults kQwen2 = {
    .vocab = 151936, .intermediate = 22016, .kv_heads = 32, .max_positions = 32768};
constexpr HfDefaults kQwen3 = {.vocab = 151936,
                               .intermediate = 22016,
                               .kv_heads = 32,
                               .head_dim = 128,
                               .max_positions = 32768};

struct Decoder : HfDecoder {
  bool mlp_bias = false;
  std::vector<int64_t> windows;  // by layer; 0: none
};

Decoder ReadDecoder(ConfigReader* reader, const HfDefaults& defaults, ModelConfig* config) {
  Decoder d{ReadHfDecoder(reader, defaults, config), false, {}};
  AttentionShape& s = d.attention;
  if (reader->status().ok()) {
    s.rope = ReadRope(reader, s.head_dim, 10000, config->max_position_embeddings);
  }
  d.windows.assign(d.layers, 0);
  return d;
}

void Finish(const Decoder& d, const char* model_type, ModelConfig* config) {
  const Norm norm = d.norm();
  config->spec = d.Outside();
  ModelSpec& spec = config->spec;
  config->biases = d.mlp_bias;
  config->identity = absl::StrCat(d.Identity(model_type), " mlp_bias=", d.mlp_bias,
                                  AttentionIdentity(d.attention), " windows=");
  for (int64_t layer = 0; layer < d.layers; ++layer) {
    AttentionShape shape = d.attention;
    shape.window = d.windows[layer];
    LayerSpec& own = spec.layers.emplace_back();
    own.branches.push_back({norm, {AttentionMixer(shape)}});
    own.branches.push_back({norm, {MlpSpec{.intermediate = d.intermediate}}});
    config->attention[layer] = AttentionParts(shape);
    absl::StrAppend(&config->identity, layer > 0 ? "," : "", shape.window);
  }
}

void ParseLlama(ConfigReader* reader, ModelConfig* config) {
  Decoder d = ReadDecoder(reader, kLlama, config);
  d.attention.qkv_bias = d.attention.out_bias = reader->Boolean({"attention_bias"}, false);
  d.mlp_bias = reader->Boolean({"mlp_bias"}, false);
  if (reader->status().ok()) Finish(d, "llama", config);
}

void ParseMistral(ConfigReader* reader, ModelConfig* config) {
  Decoder d = ReadDecoder(reader, kMistral, config);
  // A file that does not say has the class's window.
  const bool says = reader->Find({"sliding_window"}) != nullptr;
  const int64_t window =
      reader->OptionalInteger({"sliding_window"}, 1, 1 << 24).value_or(says ? 0 : 4096);
  d.windows.assign(d.layers, window);
  if (reader->status().ok()) Finish(d, "mistral", config);
}

// Reads which layers have the window, if the model has one: from layer_types, else from
// max_window_layers.
void ReadWindows(ConfigReader* reader, Decoder* d) {
  if (!reader->Boolean({"use_sliding_window"}, false)) return;
  const auto window = reader->OptionalInteger({"sliding_window"}, 1, 1 << 24);
  const int64_t full = reader->Integer({"max_window_layers"}, 28, 0, 1024);
  if (!window.has_value()) return;
  const Json* types = reader->Has("layer_types") ? reader->Find({"layer_types"}) : nullptr;
  if (types != nullptr &&
      (!types->is_array() || static_cast<int64_t>(types->size()) != d->layers)) {
    return reader->Refuse(absl::StrCat("layer_types is ", PrintableValue(*types),
                                       ", must be a list of num_hidden_layers ", d->layers,
                                       " words"));
  }
  for (int64_t layer = 0; layer < d->layers; ++layer) {
    bool slides = layer >= full;
    if (types != nullptr) {
      const Json& type = (*types)[layer];
      slides = type == "sliding_attention";
      if (!slides && type != "full_attention") {
        return reader->Refuse(absl::StrCat("layer_types holds ", PrintableValue(type),
                                           ", must hold \"full_attention\" or "
                                           "\"sliding_attention\""));
      }
    }
    if (slides) d->windows[layer] = *window;
  }
}

void ParseQwen2(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  Decoder d = ReadDecoder(reader, kQwen2, config);
  d.attention.qkv_bias = true;
  ReadWindows(reader, &d);
  if (reader->status().ok()) Finish(d, "qwen2", config);
}

void ParseQwen3(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  Decoder d = ReadDecoder(reader, kQwen3, config);
  d.attention.qkv_bias = d.attention.out_bias = reader->Boolean({"attention_bias"}, false);
  d.attention.qk_norm = true;
  d.attention.qk_norm_eps = d.norm_eps;
  ReadWindows(reader, &d);
  if (reader->status().ok()) Finish(d, "qwen3", config);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  TensorScope outside = table->Outside();
  outside.Add({"model.embed_tokens.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    table->Branch(i, 0, prefix).Add({"input_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    TensorScope attention = table->Unit(i, 0, 0, prefix + "self_attn.");
    AttentionTensors(std::get<MixerSpec>(branches[0].units[0]), config.attention.at(i), hidden,
                     attention);
    // Old files hold what follows from the config.
    attention.Ignore("rotary_emb.inv_freq");
    table->Branch(i, 1, prefix)
        .Add({"post_attention_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "gate_proj", "up_proj", "down_proj",
                config.biases, hidden, table->Unit(i, 1, 0, prefix + "mlp."));
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kLlamaFamily = {"llama", &ParseLlama, &Tensors};
const Family kMistralFamily = {"mistral", &ParseMistral, &Tensors};
const Family kQwen2Family = {"qwen2", &ParseQwen2, &Tensors};
const Family kQwen3Family = {"qwen3", &ParseQwen3, &Tensors};

}  // namespace sluice
