#include "engine/checkpoint/families/llama.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/attention.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// What a class has where config.json says nothing.
struct Defaults {
  const char* model_type;
  int64_t vocab;
  int64_t intermediate;
  int64_t kv_heads;  // 0: as many as heads
  int64_t head_dim;  // 0: hidden_size by heads
  int64_t max_positions;
};

constexpr Defaults kLlama = {"llama", 32000, 11008, 0, 0, 2048};
constexpr Defaults kMistral = {"mistral", 32000, 14336, 8, 0, 131072};
constexpr Defaults kQwen2 = {"qwen2", 151936, 22016, 32, 0, 32768};
constexpr Defaults kQwen3 = {"qwen3", 151936, 22016, 32, 128, 32768};

// Fields that all of them have.
struct Decoder {
  int64_t vocab = 0;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  float norm_eps = 1e-6f;
  bool mlp_bias = false;
  AttentionShape attention;      // but for the window
  std::vector<int64_t> windows;  // by layer; 0: none
};

Decoder ReadDecoder(ConfigReader* reader, const Defaults& defaults, ModelConfig* config) {
  Decoder d;
  reader->RequireWord("hidden_act", {"silu", "swish"}, "\"silu\" or \"swish\"");
  reader->RequireNull("quantization_config", "quantized weights");
  d.vocab = reader->Integer({"vocab_size"}, defaults.vocab, 1, 1 << 24);
  d.hidden = reader->Integer({"hidden_size"}, 4096, 1, 65536);
  d.intermediate = reader->Integer({"intermediate_size"}, defaults.intermediate, 1, 1 << 20);
  d.layers = reader->Integer({"num_hidden_layers"}, 32, 1, 1024);
  d.norm_eps = static_cast<float>(reader->Number({"rms_norm_eps"}, 1e-6, 1e-30, 1));
  config->tied = reader->Boolean({"tie_word_embeddings"}, false);
  config->max_position_embeddings =
      reader->Integer({"max_position_embeddings"}, defaults.max_positions, 1, int64_t{1} << 40);
  AttentionShape& s = d.attention;
  s.heads = reader->Integer({"num_attention_heads"}, 32, 1, 1024);
  const bool has_kv = reader->Find({"num_key_value_heads"}) != nullptr;
  const int64_t missing_kv = defaults.kv_heads == 0 || has_kv ? s.heads : defaults.kv_heads;
  s.kv_heads = reader->OptionalInteger({"num_key_value_heads"}, 1, 1024).value_or(missing_kv);
  const bool has_dim = reader->Find({"head_dim"}) != nullptr;
  const int64_t missing_dim = defaults.head_dim == 0 || has_dim ? 0 : defaults.head_dim;
  s.head_dim = reader->OptionalInteger({"head_dim"}, 1, 4096).value_or(missing_dim);
  if (s.head_dim == 0) {
    s.head_dim = d.hidden / s.heads;
    if (d.hidden % s.heads != 0) {
      reader->Refuse(absl::StrCat("num_attention_heads is ", s.heads, ", must divide hidden_size ",
                                  d.hidden, " where there is no head_dim"));
    }
  }
  CheckAttention(s, "num_attention_heads", "num_key_value_heads", reader);
  if (reader->status().ok()) {
    s.rope = ReadRope(reader, s.head_dim, 10000, config->max_position_embeddings);
  }
  d.windows.assign(d.layers, 0);
  return d;
}

void Finish(const Decoder& d, const Defaults& defaults, ModelConfig* config) {
  const Norm norm = {.eps = d.norm_eps};
  ModelSpec& spec = config->spec;
  spec.vocab = d.vocab;
  spec.hidden = d.hidden;
  spec.final_norm = norm;
  config->biases = d.mlp_bias;
  config->identity =
      absl::StrCat(defaults.model_type, " vocab=", d.vocab, " layers=", d.layers,
                   " hidden=", d.hidden, " intermediate=", d.intermediate, " norm_eps=", d.norm_eps,
                   " mlp_bias=", d.mlp_bias, AttentionIdentity(d.attention), " windows=");
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
  if (reader->status().ok()) Finish(d, kLlama, config);
}

void ParseMistral(ConfigReader* reader, ModelConfig* config) {
  Decoder d = ReadDecoder(reader, kMistral, config);
  // A file that does not say has the class's window.
  const bool says = reader->Find({"sliding_window"}) != nullptr;
  const int64_t window =
      reader->OptionalInteger({"sliding_window"}, 1, 1 << 24).value_or(says ? 0 : 4096);
  d.windows.assign(d.layers, window);
  if (reader->status().ok()) Finish(d, kMistral, config);
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

// These classes have no tokens of their own.
void NoDefaultTokens(ModelConfig* config) {
  config->default_bos = config->default_eos = std::numeric_limits<int32_t>::max();
}

void ParseQwen2(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  Decoder d = ReadDecoder(reader, kQwen2, config);
  d.attention.qkv_bias = true;
  ReadWindows(reader, &d);
  if (reader->status().ok()) Finish(d, kQwen2, config);
}

void ParseQwen3(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  Decoder d = ReadDecoder(reader, kQwen3, config);
  d.attention.qkv_bias = d.attention.out_bias = reader->Boolean({"attention_bias"}, false);
  d.attention.qk_norm = true;
  d.attention.qk_norm_eps = d.norm_eps;
  ReadWindows(reader, &d);
  if (reader->status().ok()) Finish(d, kQwen3, config);
}

void MlpTensors(const MlpSpec& mlp, bool bias, int64_t hidden, TensorScope scope) {
  scope.Add({"gate_proj.weight"}, {mlp.intermediate, hidden}, &MlpWeights::gate_up);
  scope.Add({"up_proj.weight"}, {mlp.intermediate, hidden}, &MlpWeights::gate_up);
  if (bias) scope.Add({"gate_proj.bias"}, {mlp.intermediate}, &MlpWeights::gate_bias);
  if (bias) scope.Add({"up_proj.bias"}, {mlp.intermediate}, &MlpWeights::up_bias);
  scope.Add({"down_proj.weight"}, {hidden, mlp.intermediate}, &MlpWeights::down);
  if (bias) scope.Add({"down_proj.bias"}, {hidden}, &MlpWeights::down_bias);
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
    MlpTensors(std::get<MlpSpec>(branches[1].units[0]), config.biases, hidden,
               table->Unit(i, 1, 0, prefix + "mlp."));
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

}  // namespace

const Family kLlamaFamily = {"llama", &ParseLlama, &Tensors};
const Family kMistralFamily = {"mistral", &ParseMistral, &Tensors};
const Family kQwen2Family = {"qwen2", &ParseQwen2, &Tensors};
const Family kQwen3Family = {"qwen3", &ParseQwen3, &Tensors};

}  // namespace sluice
