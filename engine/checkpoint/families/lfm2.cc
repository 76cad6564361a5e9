// transformers' Lfm2ForCausalLM. A convolution layer has columns B, C and x:
//   out_proj(C conv(B x))
// with a depthwise causal convolution of conv_L_cache taps and no activation. The final norm is
// called embedding_norm.
#include "engine/checkpoint/families/lfm2.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr HfDefaults kDefaults = {.vocab = 65536,
                                  .hidden = 2560,
                                  .intermediate = 12288,
                                  .kv_heads = 8,
                                  .max_positions = 128000,
                                  .norm_eps = 1e-5,
                                  .eps_name = "norm_eps",
                                  .tied = true};

constexpr NamedValue<LayerKind> kKinds[] = {{"conv", LayerKind::kLinear},
                                            {"full_attention", LayerKind::kSoftmax}};

// The class makes the MLPs' width of what the config says, unless told not to.
int64_t ReadIntermediate(ConfigReader* reader, int64_t intermediate) {
  intermediate = reader->OptionalInteger({"block_ff_dim"}, 1, 1 << 20).value_or(intermediate);
  const bool adjust = reader->Boolean({"block_auto_adjust_ff_dim"}, true);
  const double factor =
      reader->OptionalNumber({"block_ffn_dim_multiplier"}, 1e-6, 64).value_or(1.0);
  const int64_t multiple = reader->Integer({"block_multiple_of"}, 256, 1, 1 << 20);
  if (!adjust) return intermediate;
  const auto wanted = static_cast<int64_t>(factor * static_cast<double>(2 * intermediate / 3));
  if (wanted < 1) {
    reader->Refuse(absl::StrCat("intermediate_size ", intermediate,
                                " with block_ffn_dim_multiplier ", factor, " leaves no MLP"));
    return multiple;
  }
  return (wanted + multiple - 1) / multiple * multiple;
}

// The older spelling names the softmax layers by number; without either all are.
std::vector<LayerKind> KindsByIndex(ConfigReader* reader, int64_t layers) {
  if (!reader->Has("full_attn_idxs")) return std::vector<LayerKind>(layers, LayerKind::kSoftmax);
  std::vector<LayerKind> kinds(layers, LayerKind::kLinear);
  for (const int64_t layer : ReadLayerIndices(reader, "full_attn_idxs", layers)) {
    kinds[layer] = LayerKind::kSoftmax;
  }
  return kinds;
}

MixerSpec ConvMixer(int64_t hidden, int64_t taps, bool bias) {
  MixerSpec m;
  m.core = Core::kShortConv;
  m.decay = Decay::kNone;
  m.gate = GateMap::kNone;
  m.q_heads = m.k_heads = m.v_heads = m.state_heads = 1;
  m.key_width = m.dk = m.dv = hidden;
  m.k = {0, hidden};          // B
  m.q = {m.k.end(), hidden};  // C
  m.v = {m.q.end(), hidden};  // x
  m.in_dim = m.v.end();
  m.conv = {.taps = taps, .silu = false, .bias = bias};
  m.out_norm.kind = NormKind::kNone;
  return m;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  config->tied = reader->OptionalBoolean({"tie_embedding"}).value_or(config->tied);
  d.intermediate = ReadIntermediate(reader, d.intermediate);
  config->biases = reader->Boolean({"conv_bias"}, false);
  const int64_t taps = reader->Integer({"conv_L_cache"}, 3, 2, 64);
  AttentionShape& s = d.attention;
  s.qk_norm = true;
  s.qk_norm_eps = d.norm_eps;
  const std::vector<LayerKind> kinds =
      ReadLayerKinds(reader, {"layer_types"}, d.layers, kKinds, "\"conv\" or \"full_attention\"",
                     KindsByIndex(reader, d.layers));
  if (!reader->status().ok()) return;
  s.rope = ReadRope(reader, s.head_dim, 1e6, config->max_position_embeddings);
  if (!reader->status().ok()) return;

  config->spec = d.Outside();
  AttentionConfig parts = AttentionParts(s);
  parts.q_norm = "q_layernorm.weight";
  parts.k_norm = "k_layernorm.weight";
  parts.out = "out_proj";
  const MixerSpec conv = ConvMixer(d.hidden, taps, config->biases), softmax = AttentionMixer(s);
  for (int64_t i = 0; i < d.layers; ++i) {
    const bool full = kinds[i] == LayerKind::kSoftmax;
    if (full) config->attention[i] = parts;
    LayerSpec& layer = config->spec.layers.emplace_back();
    layer.branches.push_back({d.norm(), {full ? softmax : conv}});
    layer.branches.push_back({d.norm(), {MlpSpec{.intermediate = d.intermediate}}});
  }
  config->identity =
      absl::StrCat(d.Identity("lfm2"), " layer_types=", LayerKindsText(kinds), " taps=", taps,
                   " conv_bias=", config->biases, AttentionIdentity(s));
}

void ConvTensors(const MixerSpec& m, int64_t hidden, TensorScope scope) {
  using W = MixerWeights;
  scope.Add({"in_proj.weight"}, {m.in_dim, hidden}, &W::in);
  if (m.conv.bias) scope.Add({"in_proj.bias"}, {m.in_dim}, &W::in_bias);
  scope.Add({"conv.weight"}, {hidden, 1, m.conv.taps}, &W::conv_v);
  if (m.conv.bias) scope.Add({"conv.bias"}, {hidden}, &W::conv_v_bias);
  scope.Add({"out_proj.weight"}, {hidden, hidden}, &W::out);
  if (m.conv.bias) scope.Add({"out_proj.bias"}, {hidden}, &W::out_bias);
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
    table->Branch(i, 0, prefix).Add({"operator_norm.weight"}, {hidden}, &BranchWeights::norm);
    if (m.core == Core::kSoftmax) {
      AttentionTensors(m, config.attention.at(i), hidden,
                       table->Unit(i, 0, 0, prefix + "self_attn."));
    } else {
      ConvTensors(m, hidden, table->Unit(i, 0, 0, prefix + "conv."));
    }
    table->Branch(i, 1, prefix).Add({"ffn_norm.weight"}, {hidden}, &BranchWeights::norm);
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "w1", "w3", "w2", /*bias=*/false, hidden,
                table->Unit(i, 1, 0, prefix + "feed_forward."));
  }
  outside.Add({"model.embedding_norm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kLfm2Family = {"lfm2", &Parse, &Tensors};

}  // namespace sluice
