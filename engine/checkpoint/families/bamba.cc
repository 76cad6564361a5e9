// transformers' BambaForCausalLM: Mamba-2 layers, and softmax attention in those that
// attn_layer_indices lists. Its positions turn the first half of a head.
#include "engine/checkpoint/families/bamba.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/families/mamba_layer.h"

namespace sluice {
namespace {

constexpr HfDefaults kDefaults = {.vocab = 128000,
                                  .intermediate = 14336,
                                  .kv_heads = 8,
                                  .max_positions = 262144,
                                  .norm_eps = 1e-5};

// The class overrides what config.json says beside rope_parameters.
int64_t ReadTurned(ConfigReader* reader, int64_t head_dim) {
  constexpr double kPart = 0.5;
  const nlohmann::json* object = reader->Find({"rope_parameters"});
  const bool says =
      object != nullptr && object->is_object() && object->contains("partial_rotary_factor");
  if (says) return ReadRotaryDims(reader, head_dim, kPart);
  return RotaryDims(reader, head_dim, kPart);
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  std::vector<LayerKind> kinds(d.layers, LayerKind::kLinear);
  for (const int64_t layer : ReadLayerIndices(reader, "attn_layer_indices", d.layers)) {
    kinds[layer] = LayerKind::kSoftmax;
  }
  const bool has_mamba = std::count(kinds.begin(), kinds.end(), LayerKind::kLinear) > 0;
  MambaShape mamba;
  ReadMambaFields(reader, d.hidden, 0, has_mamba, &mamba);
  mamba.eps = d.norm_eps;
  config->mamba.in_bias = config->mamba.out_bias = reader->Boolean({"mamba_proj_bias"}, false);
  config->biases = reader->Boolean({"mlp_bias"}, false);
  AttentionShape& s = d.attention;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  if (!reader->status().ok()) return;
  s.rope = ReadRope(reader, ReadTurned(reader, s.head_dim), 10000, config->max_position_embeddings);
  if (!reader->status().ok()) return;

  config->spec = d.Outside();
  const MixerSpec linear = MambaMixer(mamba, config->mamba), softmax = AttentionMixer(s);
  for (int64_t i = 0; i < d.layers; ++i) {
    const bool full = kinds[i] == LayerKind::kSoftmax;
    if (full) config->attention[i] = AttentionParts(s);
    LayerSpec& layer = config->spec.layers.emplace_back();
    layer.branches.push_back({d.norm(), {full ? softmax : linear}});
    layer.branches.push_back({d.norm(), {MlpSpec{.intermediate = d.intermediate}}});
  }
  config->identity = absl::StrCat(d.Identity("bamba"), " layer_types=", LayerKindsText(kinds),
                                  " mlp_bias=", config->biases, MambaIdentity(mamba, config->mamba),
                                  AttentionIdentity(s), " rotary_dims=", softmax.rope_dims);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  TensorScope outside = table->Outside();
  outside.Add({"model.embed_tokens.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    const auto& m = std::get<MixerSpec>(branches[0].units[0]);
    table->Branch(i, 0, prefix).Add({"input_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    if (m.core == Core::kSoftmax) {
      AttentionTensors(m, config.attention.at(i), hidden,
                       table->Unit(i, 0, 0, prefix + "self_attn."));
    } else {
      MambaTensors(m, config.mamba, hidden, table->Unit(i, 0, 0, prefix + "mamba."));
    }
    table->Branch(i, 1, prefix).Add({"pre_ff_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "gate_proj", "up_proj", "down_proj",
                config.biases, hidden, table->Unit(i, 1, 0, prefix + "feed_forward."));
  }
  outside.Add({"model.final_layernorm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kBambaFamily = {"bamba", &Parse, &Tensors};

}  // namespace sluice
