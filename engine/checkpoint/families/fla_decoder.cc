#include "engine/checkpoint/families/fla_decoder.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// Two thirds of hidden_ratio times the width, rounded up to a multiple of 256.
int64_t DefaultIntermediate(double hidden_ratio, int64_t hidden, ConfigReader* reader) {
  const auto width = static_cast<int64_t>(static_cast<double>(hidden) * hidden_ratio * 2 / 3);
  const int64_t intermediate = (width + 255) / 256 * 256;
  if (intermediate < 1) {
    reader->Refuse(
        absl::StrCat("hidden_ratio ", hidden_ratio, " is too small for hidden_size ", hidden));
  }
  return intermediate;
}

void MlpTensors(int64_t intermediate, int64_t hidden, const std::string& prefix,
                const TensorSource& files, TensorScope scope) {
  // Before February 2025 gate and up were one matrix.
  const bool fused = !files.Has(absl::StrCat(prefix, "up_proj.weight")) &&
                     files.Rows(absl::StrCat(prefix, "gate_proj.weight")) == 2 * intermediate;
  scope.Add({"gate_proj.weight"}, {fused ? 2 * intermediate : intermediate, hidden},
            &MlpWeights::gate_up);
  if (!fused) scope.Add({"up_proj.weight"}, {intermediate, hidden}, &MlpWeights::gate_up);
  scope.Add({"down_proj.weight"}, {hidden, intermediate}, &MlpWeights::down);
}

// The norm before a unit. From June 2024 to February 2025 files with norm_first named it as a part
// of the unit.
void AddBranchNorm(const TensorSource& files, const std::string& prefix, const char* unit,
                   int64_t hidden, TensorScope scope) {
  const std::string name = absl::StrCat(unit, "_norm.weight");
  const std::string then = absl::StrCat(unit, ".norm.weight");
  const bool old =
      !files.Has(absl::StrCat(prefix, name)) && files.Rows(absl::StrCat(prefix, then)) == hidden;
  scope.Add({old ? then : name}, {hidden}, &BranchWeights::norm);
}

}  // namespace

ModelSpec FlaDecoder::Spec(const MixerSpec& m) const {
  const Norm norm = {.eps = norm_eps};
  ModelSpec spec;
  spec.vocab = vocab;
  spec.hidden = hidden;
  spec.final_norm = norm;
  LayerSpec layer;
  layer.branches.push_back({norm, {m}});
  layer.branches.push_back({norm, {MlpSpec{.intermediate = intermediate}}});
  spec.layers.assign(layers, layer);
  ApplyFlaAttention(attention, &spec);
  return spec;
}

std::string FlaDecoder::Identity(const char* model_type) const {
  return absl::StrCat(model_type, " vocab=", vocab, " layers=", layers, " hidden=", hidden,
                      " intermediate=", intermediate, " norm_eps=", norm_eps,
                      " mixer_norm_affine=", affine, FlaAttentionIdentity(attention));
}

FlaDecoder ReadFlaDecoder(ConfigReader* reader, double hidden_ratio, ModelConfig* config,
                          int64_t default_layers) {
  FlaDecoder d;
  reader->RequireWord("hidden_act", {"swish", "silu"}, "\"swish\" or \"silu\"");
  reader->RequireNull("attnres_block_size", "attention residuals");
  reader->RequireNull("quantization_config", "quantized weights");
  d.hidden = reader->Integer({"hidden_size", "d_model"}, 2048, 1, 65536);
  d.layers = reader->Integer({"num_hidden_layers"}, default_layers, 1, 1024);
  d.attention = ReadFlaAttention(reader, d.hidden, d.layers, config);
  d.vocab = reader->Integer({"vocab_size"}, 32000, 1, 1 << 24);
  d.norm_eps = static_cast<float>(reader->Number({"norm_eps", "rms_norm_eps"}, 1e-6, 1e-30, 1));
  d.affine = reader->Boolean({"elementwise_affine"}, true);
  const double ratio = reader->OptionalNumber({"hidden_ratio"}, 1e-6, 16).value_or(hidden_ratio);
  const auto intermediate = reader->OptionalInteger({"intermediate_size"}, 1, 1 << 20);
  d.intermediate = intermediate ? *intermediate : DefaultIntermediate(ratio, d.hidden, reader);
  config->tied = reader->Boolean({"tie_word_embeddings"}, false);
  config->max_position_embeddings =
      reader->OptionalInteger({"max_position_embeddings"}, 1, int64_t{1} << 40).value_or(2048);
  return d;
}

int64_t ReadFlaHeadWidth(ConfigReader* reader, const char* field, double expand,
                         const FlaDecoder& decoder, int64_t heads) {
  expand = reader->Number({field}, expand, 1e-6, 64);
  const double width = static_cast<double>(decoder.hidden) * expand;
  const auto columns = static_cast<int64_t>(std::llround(width));
  if (std::abs(width - static_cast<double>(columns)) > 1e-6 * width || columns < heads ||
      columns % heads != 0) {
    reader->Refuse(absl::StrCat("hidden_size ", decoder.hidden, " times ", field, " ", expand,
                                " is ", width, ", must be a multiple of num_heads ", heads));
  }
  return std::max<int64_t>(columns / heads, 1);
}

FlaHeads ReadFlaHeads(ConfigReader* reader, const FlaDecoder& decoder, int64_t default_heads,
                      double default_expand_k, double default_expand_v) {
  FlaHeads h;
  h.heads = reader->Integer({"num_heads", "num_attention_heads"}, default_heads, 1, 1024);
  h.kv_heads =
      reader->OptionalInteger({"num_kv_heads", "num_key_value_heads"}, 1, 1024).value_or(h.heads);
  if (h.heads % h.kv_heads != 0) {
    reader->Refuse(
        absl::StrCat("num_kv_heads is ", h.kv_heads, ", must divide num_heads ", h.heads));
    h.kv_heads = h.heads;
  }
  h.dk = ReadFlaHeadWidth(reader, "expand_k", default_expand_k, decoder, h.heads);
  h.dv = ReadFlaHeadWidth(reader, "expand_v", default_expand_v, decoder, h.heads);
  return h;
}

void FlaTensors(const ModelConfig& config, const TensorSource& files, const AddMixerTensors& mixer,
                TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  TensorScope outside = table->Outside();
  outside.Add({"model.embeddings.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::string attn = absl::StrCat(prefix, "attn."), mlp = absl::StrCat(prefix, "mlp.");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    AddBranchNorm(files, prefix, "attn", hidden, table->Branch(i, 0, prefix));
    const auto& m = std::get<MixerSpec>(branches[0].units[0]);
    if (m.core == Core::kSoftmax) {
      AttentionTensors(m, config.attention.at(i), hidden, table->Unit(i, 0, 0, attn));
    } else {
      mixer(i, m, attn, table->Unit(i, 0, 0, attn));
    }
    AddBranchNorm(files, prefix, "mlp", hidden, table->Branch(i, 1, prefix));
    MlpTensors(std::get<MlpSpec>(branches[1].units[0]).intermediate, hidden, mlp, files,
               table->Unit(i, 1, 0, mlp));
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

void AddShortConvs(const MixerSpec& m, const char* q, const char* k, const char* v,
                   TensorScope* scope) {
  if (m.conv.taps == 0) return;
  scope->Add({absl::StrCat(q, "_conv1d.weight")}, {m.q.width, 1, m.conv.taps},
             &MixerWeights::conv_q);
  scope->Add({absl::StrCat(k, "_conv1d.weight")}, {m.k.width, 1, m.conv.taps},
             &MixerWeights::conv_k);
  scope->Add({absl::StrCat(v, "_conv1d.weight")}, {m.v.width, 1, m.conv.taps},
             &MixerWeights::conv_v);
}

}  // namespace sluice
