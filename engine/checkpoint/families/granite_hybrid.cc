// transformers' GraniteMoeHybridForCausalLM without experts, with m = residual_multiplier:
//   x = embedding_multiplier E[t],  x += m mix(norm(x)),  x += m mlp(norm(x))
//   logits = head(norm(x)) / logits_scaling
#include "engine/checkpoint/families/granite_hybrid.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/families/mamba_layer.h"

namespace sluice {
namespace {

constexpr HfDefaults kDefaults = {.vocab = 32000, .max_positions = 2048};

constexpr NamedValue<LayerKind> kKinds[] = {{"mamba", LayerKind::kLinear},
                                            {"linear_attention", LayerKind::kLinear},
                                            {"attention", LayerKind::kSoftmax},
                                            {"full_attention", LayerKind::kSoftmax}};

struct Multipliers {
  float embedding, residual, logits;
};

Multipliers ReadMultipliers(ConfigReader* reader) {
  const auto read = [reader](const char* name) {
    return static_cast<float>(reader->Number({name}, 1.0, 1e-6, 1e6));
  };
  return {read("embedding_multiplier"), read("residual_multiplier"), read("logits_scaling")};
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  if (reader->Integer({"num_local_experts"}, 8, 0, 65536) != 0) {
    reader->Refuse("num_local_experts is not 0: layers with experts are not supported");
  }
  d.intermediate = reader->Integer({"shared_intermediate_size"}, 1024, 1, 1 << 20);
  const Multipliers scales = ReadMultipliers(reader);
  AttentionShape& s = d.attention;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  s.scale = static_cast<float>(reader->Number({"attention_multiplier"}, 1.0, 1e-6, 1e6));
  s.out_scale = scales.residual;
  const std::vector<LayerKind> kinds =
      ReadLayerKinds(reader, {"layer_types", "layers_block_type"}, d.layers, kKinds,
                     "\"mamba\", \"linear_attention\", \"attention\" or \"full_attention\"",
                     std::vector<LayerKind>(d.layers, LayerKind::kLinear));
  const bool has_mamba = std::count(kinds.begin(), kinds.end(), LayerKind::kLinear) > 0;
  MambaShape mamba;
  ReadMambaFields(reader, d.hidden, 0, has_mamba, &mamba);
  mamba.eps = d.norm_eps;
  mamba.out_scale = scales.residual;
  config->mamba.in_bias = config->mamba.out_bias = reader->Boolean({"mamba_proj_bias"}, false);
  const nlohmann::json* position = reader->Find({"position_embedding_type"});
  if (!reader->status().ok()) return;
  if (position != nullptr && *position == "rope") {
    s.rope = ReadRope(reader, s.head_dim, 10000, config->max_position_embeddings);
  }
  if (!reader->status().ok()) return;

  ModelSpec& spec = config->spec;
  spec = d.Outside();
  spec.embedding_scale = scales.embedding;
  spec.logit_scale = 1.0f / scales.logits;
  const MlpSpec mlp = {.intermediate = d.intermediate, .out_scale = scales.residual};
  for (int64_t i = 0; i < d.layers; ++i) {
    const bool full = kinds[i] == LayerKind::kSoftmax;
    if (full) config->attention[i] = AttentionParts(s);
    LayerSpec& layer = spec.layers.emplace_back();
    layer.branches.push_back(
        {d.norm(), {full ? AttentionMixer(s) : MambaMixer(mamba, config->mamba)}});
    layer.branches.push_back({d.norm(), {mlp}});
  }
  config->identity =
      absl::StrCat(d.Identity("granitemoehybrid"), " layer_types=", LayerKindsText(kinds),
                   " embedding_scale=", scales.embedding, " residual_scale=", scales.residual,
                   " logits_scaling=", scales.logits,
                   has_mamba ? MambaIdentity(mamba, config->mamba) : "", AttentionIdentity(s));
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
    table->Branch(i, 1, prefix)
        .Add({"post_attention_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    const int64_t intermediate = std::get<MlpSpec>(branches[1].units[0]).intermediate;
    TensorScope mlp = table->Unit(i, 1, 0, prefix + "shared_mlp.");
    mlp.Add({"input_linear.weight"}, {2 * intermediate, hidden}, &MlpWeights::gate_up);
    mlp.Add({"output_linear.weight"}, {hidden, intermediate}, &MlpWeights::down);
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kGraniteHybridFamily = {"granitemoehybrid", &Parse, &Tensors};

}  // namespace sluice
