// Linear attention (arXiv 2006.16236) as flash-linear-attention's LinearAttentionForCausalLM has
// it:
//   S <- S + f(k) v^T,  z <- z + f(k),  o = (F^-1/2 f(q))^T S, divided by (F^-1/2 f(q)) z + 1e-10
// where the model normalises; F is the width of the mapped head.
#include "engine/checkpoint/families/linear_attn.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {
namespace {

constexpr NamedValue<FeatureMap> kFeatureMaps[] = {
    {"elementwise_product", FeatureMap::kProduct},
    {"hedgehog", FeatureMap::kHedgehog},
    {"t2r", FeatureMap::kT2r},
    {"dpfp", FeatureMap::kDpfp},
    {"elu", FeatureMap::kEluPlusOne},
    {"relu", FeatureMap::kRelu},
    {"identity", FeatureMap::kIdentity},
};

// A mapped head's width over the head's.
int64_t Widening(FeatureMap map) {
  if (map == FeatureMap::kHedgehog) return 2;
  return map == FeatureMap::kDpfp ? 8 : 1;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  const FlaHeads h = ReadFlaHeads(reader, d, 4, 1.0, 1.0);
  const auto map = reader->Word<FeatureMap>(
      "feature_map", FeatureMap::kProduct, kFeatureMaps, /*nullable=*/true,
      "\"elementwise_product\", \"hedgehog\", \"t2r\", \"dpfp\", \"elu\", \"relu\" or "
      "\"identity\"");
  config->tied_feature_maps = reader->OptionalBoolean({"tie_feature_map_qk"}).value_or(false);
  const bool norm_q = reader->OptionalBoolean({"norm_q"}).value_or(false);
  const bool norm_k = reader->OptionalBoolean({"norm_k"}).value_or(false);
  const bool normaliser = reader->OptionalBoolean({"norm_feature_map"}).value_or(false);
  if (!reader->status().ok()) return;

  MixerSpec m;
  m.decay = Decay::kNone;
  m.gate = GateMap::kNone;
  m.q_heads = h.heads;
  m.k_heads = m.v_heads = m.state_heads = h.kv_heads;
  m.key_width = h.dk;
  m.dk = h.dk * Widening(map);
  m.dv = h.dv;
  m.q = {0, h.heads * h.dk};
  m.k = {m.q.end(), h.kv_heads * h.dk};
  m.v = {m.k.end(), h.kv_heads * h.dv};
  m.in_dim = m.v.end();
  m.q_map = m.k_map = map;
  m.q_norm = norm_q ? QkNorm::kSum : QkNorm::kNone;
  m.k_norm = norm_k ? QkNorm::kSum : QkNorm::kNone;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(m.dk));
  m.normaliser = normaliser;
  m.out_norm = {.affine = d.affine, .eps = d.norm_eps};
  config->spec = d.Spec(m);
  config->identity =
      absl::StrCat(d.Identity("linear_attn"), " heads=", h.heads, " kv_heads=", h.kv_heads,
                   " dk=", h.dk, " dv=", h.dv, " feature_map=", static_cast<int>(map),
                   " norm_q=", norm_q, " norm_k=", norm_k, " normaliser=", normaliser);
}

// A map's linear layer, one for all heads. Of tied maps a file may hold either side's name or both.
void AddMap(const char* layer, bool bias, bool tied, int64_t width, Into q, Into q_bias, Into k,
            Into k_bias, TensorScope* scope) {
  const std::string q_name = absl::StrCat("feature_map_q.", layer);
  const std::string k_name = absl::StrCat("feature_map_k.", layer);
  const auto add = [&](const std::string& own, const std::string& other, const char* part,
                       std::vector<int64_t> shape, Into into) {
    std::vector<std::string> names = {own + part};
    if (tied) names.push_back(other + part);
    scope->Add(std::move(names), std::move(shape), into);
  };
  add(q_name, k_name, ".weight", {width, width}, q);
  add(k_name, q_name, ".weight", {width, width}, k);
  if (!bias) return;
  add(q_name, k_name, ".bias", {width}, q_bias);
  add(k_name, q_name, ".bias", {width}, k_bias);
}

void AddMaps(const MixerSpec& m, bool tied, TensorScope* scope) {
  using W = MixerWeights;
  const int64_t width = m.key_width;
  if (m.q_map == FeatureMap::kHedgehog || m.q_map == FeatureMap::kT2r) {
    AddMap("layer", m.q_map == FeatureMap::kHedgehog, tied, width, &W::q_map, &W::q_map_bias,
           &W::k_map, &W::k_map_bias, scope);
  }
  if (m.q_map == FeatureMap::kProduct) {
    AddMap("layer1", true, tied, width, &W::q_map, &W::q_map_bias, &W::k_map, &W::k_map_bias,
           scope);
    AddMap("layer2", true, tied, width, &W::q_map2, &W::q_map2_bias, &W::k_map2, &W::k_map2_bias,
           scope);
  }
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string&, TensorScope scope) {
    scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
    scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
    scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
    AddMaps(m, config.tied_feature_maps, &scope);
    if (m.out_norm.affine) scope.Add({"norm.weight"}, {m.dv}, &MixerWeights::out_norm);
    scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kLinearAttnFamily = {"linear_attn", &Parse, &Tensors};

}  // namespace sluice
