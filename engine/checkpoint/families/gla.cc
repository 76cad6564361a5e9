#include "engine/checkpoint/families/gla.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_attention.h"

namespace sluice {
namespace {

constexpr int64_t kGateRank = 16;

constexpr NamedValue<FeatureMap> kFeatureMaps[] = {
    {"relu", FeatureMap::kRelu},          {"sigmoid", FeatureMap::kSigmoid},
    {"silu", FeatureMap::kSilu},          {"swish", FeatureMap::kSilu},
    {"gelu", FeatureMap::kGeluTanh},      {"logsigmoid", FeatureMap::kLogSigmoid},
    {"sqrelu", FeatureMap::kSquaredRelu},
};

// Columns per head of a projection that is `expand` times as wide as the model.
int64_t PerHead(const char* name, double expand, const GlaShape& s, ConfigReader* reader) {
  const auto width = static_cast<int64_t>(static_cast<double>(s.hidden) * expand);
  if (width < s.heads || width % s.heads != 0) {
    reader->Refuse(absl::StrCat("hidden_size ", s.hidden, " times ", name, " ", expand, " is ",
                                width, ", must be a multiple of num_heads ", s.heads));
  }
  return width / s.heads;
}

// GLAConfig's default: two thirds of hidden_ratio times the width, rounded up to a multiple of 256.
int64_t DefaultIntermediate(double hidden_ratio, const GlaShape& s, ConfigReader* reader) {
  const auto width = static_cast<int64_t>(static_cast<double>(s.hidden) * hidden_ratio * 2 / 3);
  const int64_t intermediate = (width + 255) / 256 * 256;
  if (intermediate < 1) {
    reader->Refuse(
        absl::StrCat("hidden_ratio ", hidden_ratio, " is too small for hidden_size ", s.hidden));
  }
  return intermediate;
}

void RefuseWhatIsNotServed(ConfigReader* reader, bool short_conv) {
  reader->RequireBoolean("use_gk", true);
  reader->RequireBoolean("use_gv", false);
  const bool shared = reader->OptionalBoolean({"share_conv_kernel"}).value_or(false);
  reader->RequireNull("attnres_block_size", "attention residuals");
  reader->RequireNull("quantization_config", "quantized weights");
  if (shared && short_conv) {
    reader->Refuse(
        "share_conv_kernel is true, must be false: one convolution for q, k and v is not "
        "supported");
  }
}

// It must stay as it is byte for byte: it is a part of every fingerprint.
std::string Identity(const GlaShape& s) {
  return absl::StrCat("gla vocab=", s.vocab, " layers=", s.layers, " hidden=", s.hidden,
                      " heads=", s.heads, " kv_heads=", s.kv_heads, " dk=", s.dk, " dv=", s.dv,
                      " gate_rank=", s.gate_rank, " intermediate=", s.intermediate,
                      " conv_size=", s.conv_size, " feature_map=", static_cast<int>(s.feature_map),
                      " output_gate=", s.output_gate,
                      " log_gate_min=", s.clamp_log_gate ? absl::StrCat(s.log_gate_min) : "none",
                      " norm_eps=", s.norm_eps, " head_norm_affine=", s.head_norm_affine);
}

// The initial values are GLAConfig's.
void Parse(ConfigReader* reader, ModelConfig* config) {
  reader->RequireWord("hidden_act", {"swish", "silu"}, "\"swish\" or \"silu\"");
  reader->RequireWord("attn_mode", {"chunk", "fused_chunk", "fused_recurrent"},
                      "\"chunk\", \"fused_chunk\" or \"fused_recurrent\"");
  GlaShape s;
  s.feature_map = reader->Word<FeatureMap>(
      "feature_map", FeatureMap::kIdentity, kFeatureMaps, /*nullable=*/true,
      "null, \"relu\", \"sigmoid\", \"logsigmoid\", \"silu\", \"swish\", \"sqrelu\" or \"gelu\"");
  s.hidden = reader->Integer({"hidden_size", "d_model"}, 2048, 1, 65536);
  s.layers = reader->Integer({"num_hidden_layers"}, 24, 1, 1024);
  s.heads = reader->Integer({"num_heads"}, 4, 1, 1024);
  s.kv_heads = reader->OptionalInteger({"num_kv_heads"}, 1, 1024).value_or(s.heads);
  const auto intermediate = reader->OptionalInteger({"intermediate_size"}, 1, 1 << 20);
  s.vocab = reader->Integer({"vocab_size"}, 32000, 1, 1 << 24);
  const int64_t conv_size = reader->Integer({"conv_size"}, 4, 1, 64);
  config->max_position_embeddings =
      reader->OptionalInteger({"max_position_embeddings"}, 1, int64_t{1} << 40).value_or(2048);
  const double expand_k = reader->Number({"expand_k"}, 0.5, 1e-6, 64);
  const double expand_v = reader->Number({"expand_v"}, 1.0, 1e-6, 64);
  const double hidden_ratio = reader->OptionalNumber({"hidden_ratio"}, 1e-6, 16).value_or(4.0);
  s.norm_eps = static_cast<float>(reader->Number({"norm_eps", "rms_norm_eps"}, 1e-6, 1e-30, 1));
  // A log gate above 0 would let the state grow without bound.
  const auto clamp_min = reader->OptionalNumber({"clamp_min"}, -1e30, 0);
  s.clamp_log_gate = clamp_min.has_value();
  s.log_gate_min = static_cast<float>(clamp_min.value_or(0.0));
  const bool short_conv = reader->Boolean({"use_short_conv"}, false);
  s.conv_size = short_conv ? conv_size : 0;
  s.output_gate = reader->Boolean({"use_output_gate"}, true);
  s.head_norm_affine = reader->Boolean({"elementwise_affine"}, true);
  config->tied = reader->Boolean({"tie_word_embeddings"}, false);
  s.gate_rank = kGateRank;
  RefuseWhatIsNotServed(reader, short_conv);
  const FlaAttention attention = ReadFlaAttention(reader, s.hidden, s.layers, config);
  if (!reader->status().ok()) return;

  if (s.heads % s.kv_heads != 0) {
    reader->Refuse(
        absl::StrCat("num_kv_heads is ", s.kv_heads, ", must divide num_heads ", s.heads));
  }
  s.dk = PerHead("expand_k", expand_k, s, reader);
  s.dv = PerHead("expand_v", expand_v, s, reader);
  s.intermediate = intermediate ? *intermediate : DefaultIntermediate(hidden_ratio, s, reader);
  if (!reader->status().ok()) return;
  config->spec = s.Spec();
  ApplyFlaAttention(attention, &config->spec);
  config->identity = Identity(s) + FlaAttentionIdentity(attention);
}

void MixerTensors(const MixerSpec& m, int64_t hidden, const std::string& prefix,
                  const TensorSource& files, TensorScope scope) {
  scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
  scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
  scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
  scope.Add({"gk_proj.0.weight"}, {m.gate_in.width, hidden}, &MixerWeights::in);
  if (m.gated()) scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
  scope.Add({"gk_proj.1.weight"}, {m.k.width, m.gate_in.width}, &MixerWeights::gate);
  scope.Add({"gk_proj.1.bias"}, {m.k.width}, &MixerWeights::gate_bias);
  if (m.conv.taps > 0) {
    scope.Add({"q_conv1d.weight"}, {m.q.width, 1, m.conv.taps}, &MixerWeights::conv_q);
    scope.Add({"k_conv1d.weight"}, {m.k.width, 1, m.conv.taps}, &MixerWeights::conv_k);
    scope.Add({"v_conv1d.weight"}, {m.v.width, 1, m.conv.taps}, &MixerWeights::conv_v);
  }
  if (m.out_norm.affine) {
    // The same weight under two names: which one depends on whether norm and gate were one kernel
    // in training.
    const bool fused = files.Has(absl::StrCat(prefix, "g_norm_swish_gate.weight"));
    scope.Add({fused ? "g_norm_swish_gate.weight" : "g_norm.weight"}, {m.dv},
              &MixerWeights::out_norm);
  }
  scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
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

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  TensorScope outside = table->Outside();
  outside.Add({"model.embeddings.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::string attn = absl::StrCat(prefix, "attn."), mlp = absl::StrCat(prefix, "mlp.");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    table->Branch(i, 0, prefix).Add({"attn_norm.weight"}, {hidden}, &BranchWeights::norm);
    const auto& m = std::get<MixerSpec>(branches[0].units[0]);
    if (m.core == Core::kSoftmax) {
      AttentionTensors(m, config.attention.at(i), hidden, table->Unit(i, 0, 0, attn));
    } else {
      MixerTensors(m, hidden, attn, files, table->Unit(i, 0, 0, attn));
    }
    table->Branch(i, 1, prefix).Add({"mlp_norm.weight"}, {hidden}, &BranchWeights::norm);
    MlpTensors(std::get<MlpSpec>(branches[1].units[0]).intermediate, hidden, mlp, files,
               table->Unit(i, 1, 0, mlp));
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

}  // namespace

ModelSpec GlaShape::Spec() const {
  MixerSpec m;
  m.core = Core::kLinear;
  m.decay = Decay::kKey;
  m.gate = GateMap::kGla;
  m.q_heads = heads;
  m.k_heads = m.v_heads = m.state_heads = kv_heads;
  m.key_width = m.dk = dk;
  m.dv = dv;
  m.q = {0, q_dim()};
  m.k = {m.q.end(), k_dim()};
  m.v = {m.k.end(), v_dim()};
  m.gate_in = {m.v.end(), gate_rank};
  m.out_gate = {m.gate_in.end(), output_gate ? out_dim() : 0};
  m.in_dim = mixer_in_dim();
  m.conv.taps = conv_size;
  m.q_map = m.k_map = feature_map;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(dk));
  m.clamp_log_gate = clamp_log_gate;
  m.log_gate_min = log_gate_min;
  const Norm norm = {.eps = norm_eps};
  m.out_norm = {.affine = head_norm_affine, .eps = norm_eps};

  ModelSpec spec;
  spec.vocab = vocab;
  spec.hidden = hidden;
  spec.final_norm = norm;
  LayerSpec layer;
  layer.branches.push_back({norm, {m}});
  layer.branches.push_back({norm, {MlpSpec{.intermediate = intermediate}}});
  spec.layers.assign(layers, layer);
  return spec;
}

const Family kGlaFamily = {"gla", &Parse, &Tensors};

}  // namespace sluice
