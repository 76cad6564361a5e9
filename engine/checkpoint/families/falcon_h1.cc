// transformers' FalconH1ForCausalLM, with y = norm(x):
//   x += ssm_out_multiplier mamba(ssm_in_multiplier y)
//        + attention_out_multiplier attn(attention_in_multiplier y)
//   x += mlp(norm(x)),  mlp(y) = m1 down(up(y) silu(m0 gate(y)))
// The parts of the Mamba-2 projection have factors of their own, and so have keys.
#include "engine/checkpoint/families/falcon_h1.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/families/mamba_layer.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr HfDefaults kDefaults = {
    .vocab = 128000, .intermediate = 14336, .kv_heads = 8, .max_positions = 8192, .norm_eps = 1e-5};

constexpr double kLeastFactor = 1e-9, kMostFactor = 1e6;

float ReadFactor(ConfigReader* reader, const char* name) {
  return static_cast<float>(reader->Number({name}, 1.0, kLeastFactor, kMostFactor));
}

// A list of factors; null or missing: ones.
void ReadFactors(ConfigReader* reader, const char* name, absl::Span<float> factors) {
  const Json* list = reader->Find({name});
  if (list == nullptr || list->is_null()) return;
  bool good = list->is_array() && list->size() == factors.size();
  for (size_t i = 0; good && i < factors.size(); ++i) {
    const std::optional<double> number = NumberOf((*list)[i]);
    good = number && *number >= kLeastFactor && *number <= kMostFactor;
    if (good) factors[i] = static_cast<float>(*number);
  }
  if (good) return;
  reader->Refuse(absl::StrCat(name, " is ", PrintableValue(*list), ", must be a list of ",
                              factors.size(), " numbers in [", kLeastFactor, ", ", kMostFactor,
                              "]"));
}

MambaShape ReadMamba(ConfigReader* reader, const HfDecoder& d, ModelConfig* config) {
  MambaShape s;
  const int64_t inner = reader->Find({"mamba_d_ssm"}) == nullptr
                            ? 1024
                            : reader->OptionalInteger({"mamba_d_ssm"}, 1, 1 << 22).value_or(0);
  ReadMambaFields(reader, d.hidden, inner, /*used=*/true, &s);
  s.gated_norm = reader->Boolean({"mamba_rms_norm"}, false);
  s.norm_before_gate = reader->Boolean({"mamba_norm_before_gate"}, true);
  s.eps = d.norm_eps;
  s.out_scale = ReadFactor(reader, "ssm_out_multiplier");
  config->mamba.in_bias = reader->Boolean({"mamba_proj_bias"}, false);
  config->mamba.out_bias = reader->Boolean({"projectors_bias"}, false);
  config->mamba.in_scale = ReadFactor(reader, "ssm_in_multiplier");
  ReadFactors(reader, "ssm_multipliers", absl::MakeSpan(config->mamba.part_scales));
  return s;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  reader->RequireNull("attn_layer_indices", "layers without attention");
  const MambaShape mamba = ReadMamba(reader, d, config);
  AttentionShape& s = d.attention;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  s.in_scale = ReadFactor(reader, "attention_in_multiplier");
  s.out_scale = ReadFactor(reader, "attention_out_multiplier");
  s.key_scale = ReadFactor(reader, "key_multiplier");
  config->biases = reader->Boolean({"mlp_bias"}, false);
  float mlp_factors[2] = {1.0f, 1.0f};
  ReadFactors(reader, "mlp_multipliers", absl::MakeSpan(mlp_factors));
  const float embedding = ReadFactor(reader, "embedding_multiplier");
  const float logits = ReadFactor(reader, "lm_head_multiplier");
  if (!reader->status().ok()) return;
  s.rope = ReadRope(reader, s.head_dim, 10000, config->max_position_embeddings);
  if (!reader->status().ok()) return;

  ModelSpec& spec = config->spec;
  spec = d.Outside();
  spec.embedding_scale = embedding;
  spec.logit_scale = logits;
  const MlpSpec mlp = {
      .intermediate = d.intermediate, .gate_scale = mlp_factors[0], .out_scale = mlp_factors[1]};
  LayerSpec layer;
  layer.branches.push_back({d.norm(), {MambaMixer(mamba, config->mamba), AttentionMixer(s)}});
  layer.branches.push_back({d.norm(), {mlp}});
  spec.layers.assign(d.layers, layer);
  for (int64_t i = 0; i < d.layers; ++i) config->attention[i] = AttentionParts(s);
  config->identity = absl::StrCat(d.Identity("falcon_h1"), " mlp_bias=", config->biases,
                                  " mlp_scales=", mlp.gate_scale, ",", mlp.out_scale,
                                  " embedding_scale=", embedding, " logit_scale=", logits,
                                  MambaIdentity(mamba, config->mamba), AttentionIdentity(s));
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
    MambaTensors(std::get<MixerSpec>(branches[0].units[0]), config.mamba, hidden,
                 table->Unit(i, 0, 0, prefix + "mamba."));
    AttentionTensors(std::get<MixerSpec>(branches[0].units[1]), config.attention.at(i), hidden,
                     table->Unit(i, 0, 1, prefix + "self_attn."));
    table->Branch(i, 1, prefix).Add({"pre_ff_layernorm.weight"}, {hidden}, &BranchWeights::norm);
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "gate_proj", "up_proj", "down_proj",
                config.biases, hidden, table->Unit(i, 1, 0, prefix + "feed_forward."));
  }
  outside.Add({"model.final_layernorm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kFalconH1Family = {"falcon_h1", &Parse, &Tensors};

}  // namespace sluice
