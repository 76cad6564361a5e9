// transformers' NemotronHForCausalLM without experts. A layer is one thing, x += unit(norm(x)): a
// Mamba-2 mixer, softmax attention without positions, or an MLP down(relu(up(x))^2).
#include "engine/checkpoint/families/nemotron_h.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/families/mamba_layer.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr HfDefaults kDefaults = {.vocab = 131072,
                                  .intermediate = 21504,
                                  .kv_heads = 8,
                                  .head_dim = 128,
                                  .max_positions = 4096,
                                  .norm_eps = 1e-5,
                                  .eps_name = "layer_norm_epsilon"};

constexpr NamedValue<LayerKind> kKinds[] = {
    {"mamba", LayerKind::kLinear},      {"linear_attention", LayerKind::kLinear},
    {"attention", LayerKind::kSoftmax}, {"full_attention", LayerKind::kSoftmax},
    {"mlp", LayerKind::kMlp},           {"M", LayerKind::kLinear},
    {"*", LayerKind::kSoftmax},         {"-", LayerKind::kMlp}};

void RefuseKind(const char* name, const Json& kind, ConfigReader* reader) {
  const bool experts = kind == "E" || kind == "moe";
  reader->Refuse(absl::StrCat(name, " holds ", PrintableValue(kind),
                              experts
                                  ? ": layers with experts are not supported"
                                  : ", must hold \"mamba\" (M), \"attention\" (*) or \"mlp\" (-)"));
}

// layers_block_type, or hybrid_override_pattern, a letter for each layer.
std::vector<LayerKind> ReadKinds(ConfigReader* reader) {
  std::vector<LayerKind> kinds;
  const char* name = "hybrid_override_pattern";
  for (const char* list : {"layer_types", "layers_block_type"}) {
    if (reader->Has(list)) name = list;
  }
  Json words = Json::array();
  const Json* value = reader->Find({name});
  if (value != nullptr && value->is_array()) {
    words = *value;
  } else if (value != nullptr && value->is_string()) {
    for (const char letter : *value->get_ptr<const std::string*>()) {
      words.push_back(Printable(std::string(1, letter)));
    }
  }
  constexpr size_t kMostLayers = 1024;
  if (words.empty() || words.size() > kMostLayers) {
    reader->Refuse(absl::StrCat(name, " is ", value == nullptr ? "missing" : PrintableValue(*value),
                                ", must name the kinds of 1 to ", kMostLayers, " layers"));
    return kinds;
  }
  for (const Json& word : words) {
    const NamedValue<LayerKind>* known = nullptr;
    for (const NamedValue<LayerKind>& kind : kKinds) {
      if (word == kind.name) known = &kind;
    }
    if (known == nullptr) {
      RefuseKind(name, word, reader);
      return kinds;
    }
    kinds.push_back(known->value);
  }
  return kinds;
}

MambaShape ReadMamba(ConfigReader* reader, float eps) {
  MambaShape s;
  s.heads = reader->Integer({"mamba_num_heads"}, 128, 1, 65536);
  s.head_dim = reader->Integer({"mamba_head_dim"}, 64, 1, 65536);
  s.groups = reader->Integer({"n_groups", "mamba_n_groups"}, 8, 1, 1024);
  s.state = reader->Integer({"ssm_state_size"}, 128, 1, 65536);
  s.taps = reader->Integer({"conv_kernel", "mamba_d_conv"}, 4, 1, 64);
  s.conv_bias = reader->Boolean({"use_conv_bias", "mamba_conv_bias"}, true);
  s.eps = eps;
  ReadTimeStepLimit(reader->Has("mamba_dt_limit") ? "mamba_dt_limit" : "time_step_limit", reader,
                    &s);
  reader->RequireWord("mamba_hidden_act", {"silu", "swish"}, "\"silu\" or \"swish\"");
  if (s.heads % s.groups != 0) {
    reader->Refuse(
        absl::StrCat("n_groups is ", s.groups, ", must divide mamba_num_heads ", s.heads));
  }
  return s;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  config->tied = false;  // the class never ties
  reader->RequireWord("mlp_hidden_act", {"relu2"}, "\"relu2\"");
  reader->RequireNull("sliding_window", "windows of softmax layers");
  const std::vector<LayerKind> kinds = ReadKinds(reader);
  const auto layers = static_cast<int64_t>(kinds.size());
  if (reader->status().ok() && reader->Has("num_hidden_layers") && d.layers != layers) {
    reader->Refuse(absl::StrCat("num_hidden_layers is ", d.layers, ", must be the ", layers,
                                " layers whose kinds the config names"));
  }
  d.layers = layers;
  AttentionShape& s = d.attention;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  config->biases = reader->Boolean({"mlp_bias"}, false);
  config->mamba.in_bias = config->mamba.out_bias = reader->Boolean({"use_bias"}, false);
  const MambaShape mamba = ReadMamba(reader, d.norm_eps);
  bool mixes = false;
  for (const LayerKind kind : kinds) mixes = mixes || kind != LayerKind::kMlp;
  if (reader->status().ok() && !mixes) reader->Refuse("no layer mixes tokens: all are MLPs");
  if (!reader->status().ok()) return;

  config->spec = d.Outside();
  const MlpSpec mlp = {.intermediate = d.intermediate, .act = Act::kSquaredRelu, .gated = false};
  for (int64_t i = 0; i < d.layers; ++i) {
    UnitSpec unit = mlp;
    if (kinds[i] == LayerKind::kLinear) unit = MambaMixer(mamba, config->mamba);
    if (kinds[i] == LayerKind::kSoftmax) {
      unit = AttentionMixer(s);
      config->attention[i] = AttentionParts(s);
    }
    config->spec.layers.emplace_back().branches.push_back({d.norm(), {unit}});
  }
  config->identity = absl::StrCat(d.Identity("nemotron_h"), " kinds=", LayerKindsText(kinds),
                                  " mlp_bias=", config->biases, MambaIdentity(mamba, config->mamba),
                                  AttentionIdentity(s));
}

void MlpTensors(const MlpSpec& mlp, bool bias, int64_t hidden, TensorScope scope) {
  scope.Add({"up_proj.weight"}, {mlp.intermediate, hidden}, &MlpWeights::up);
  if (bias) scope.Add({"up_proj.bias"}, {mlp.intermediate}, &MlpWeights::up_bias);
  scope.Add({"down_proj.weight"}, {hidden, mlp.intermediate}, &MlpWeights::down);
  if (bias) scope.Add({"down_proj.bias"}, {hidden}, &MlpWeights::down_bias);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  const std::string model = files.Has("model.embeddings.weight") ? "model." : "backbone.";
  TensorScope outside = table->Outside();
  table->Outside(model).Add({"embeddings.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat(model, "layers.", i, ".");
    table->Branch(i, 0, prefix).Add({"norm.weight"}, {hidden}, &BranchWeights::norm);
    TensorScope unit = table->Unit(i, 0, 0, prefix + "mixer.");
    const UnitSpec& what = spec.layers[i].branches[0].units[0];
    const auto* m = std::get_if<MixerSpec>(&what);
    if (m == nullptr) {
      MlpTensors(std::get<MlpSpec>(what), config.biases, hidden, unit);
    } else if (m->core == Core::kSoftmax) {
      AttentionTensors(*m, config.attention.at(i), hidden, unit);
    } else {
      MambaTensors(*m, config.mamba, hidden, unit);
    }
  }
  table->Outside(model).Add({"norm_f.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
  table->Skip("mtp.", "multi-token prediction");
}

}  // namespace

const Family kNemotronHFamily = {"nemotron_h", &Parse, &Tensors};

}  // namespace sluice
