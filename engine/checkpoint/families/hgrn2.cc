// HGRN2 (arXiv 2404.07904) as flash-linear-attention's HGRN2ForCausalLM has it:
//   f = lb + (1 - lb) sigmoid(x_f),  S <- diag(f) S + (1 - f) i^T,  o = (e^-1/2 silu(x_q))^T S
// where a layer's lower bound lb is the cumulative sum over layers of a softmax over layers, less
// its first row.
#include "engine/checkpoint/families/hgrn2.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {
namespace {

// The class does not hand norm_eps to the norm of its output, which keeps its own default.
constexpr float kOutNormEps = 1e-5f;

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  // If a ratio is given, the number of heads follows from it.
  auto ratio = reader->OptionalInteger({"expand_ratio"}, 1, 65536);
  const auto heads_given = reader->OptionalInteger({"num_heads"}, 1, 1024);
  if (!ratio && !heads_given) ratio = 128;
  const int64_t heads = ratio ? d.hidden / *ratio : *heads_given;
  const int64_t dk = ratio ? *ratio : d.hidden / *heads_given;
  if (heads * dk != d.hidden) {
    reader->Refuse(
        ratio ? absl::StrCat("expand_ratio is ", dk, ", must divide hidden_size ", d.hidden)
              : absl::StrCat("num_heads is ", heads, ", must divide hidden_size ", d.hidden));
  }
  const int64_t conv_size = reader->Integer({"conv_size"}, 4, 1, 64);
  const bool short_conv = reader->Boolean({"use_short_conv"}, false);
  const bool bounded = reader->Boolean({"use_lower_bound"}, true);
  if (!reader->status().ok()) return;

  MixerSpec m;
  m.decay = Decay::kKey;
  m.gate = GateMap::kHgrn2;
  m.q_heads = m.k_heads = m.v_heads = m.state_heads = heads;
  m.key_width = m.dk = dk;
  m.dv = d.hidden / heads;
  m.q = {0, d.hidden};
  m.k = m.gate_in = {m.q.end(), d.hidden};  // f: keys and decays are both made of it
  m.v = {m.k.end(), d.hidden};
  m.in_dim = m.v.end();
  m.conv = {.taps = short_conv ? conv_size : 0, .silu = false};
  m.q_map = FeatureMap::kSilu;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(dk));
  m.out_norm = {.affine = d.affine, .eps = kOutNormEps};
  m.norm_span = NormSpan::kAll;
  config->spec = d.Spec(m);
  config->identity = absl::StrCat(d.Identity("hgrn2"), " heads=", heads, " dk=", dk,
                                  " conv_size=", m.conv.taps, " lower_bound=", bounded);
  config->lower_bounds = bounded;
}

// lower_bounds (layers, hidden) -> the bounds of one layer.
std::vector<float> BoundsOfLayer(const std::vector<float>& table, int64_t layers, int64_t hidden,
                                 int64_t layer) {
  std::vector<float> bounds(hidden);
  for (int64_t i = 0; i < hidden; ++i) {
    double largest = table[i];
    for (int64_t l = 1; l < layers; ++l) {
      largest = std::max(largest, double{table[l * hidden + i]});
    }
    double sum = 0.0, below = 0.0;
    for (int64_t l = 0; l < layers; ++l) {
      const double weight = std::exp(table[l * hidden + i] - largest);
      sum += weight;
      if (l > 0 && l <= layer) below += weight;
    }
    bounds[i] = static_cast<float>(below / sum);
  }
  return bounds;
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto layers = static_cast<int64_t>(config.spec.layers.size());
  const auto mixer = [&](int64_t layer, const MixerSpec& m, const std::string&, TensorScope scope) {
    scope.Add({"q_proj.weight"}, {hidden, hidden}, &MixerWeights::in);
    scope.Add({"f_proj.weight"}, {hidden, hidden}, &MixerWeights::in);
    scope.Add({"i_proj.weight"}, {hidden, hidden}, &MixerWeights::in);
    AddShortConvs(m, "q", "f", "i", &scope);
    if (config.lower_bounds) {
      table->Unit(layer, 0, 0, "")
          .AddDerived({"model.lower_bounds"}, {layers, hidden}, &MixerWeights::lower_bound, hidden,
                      [=](std::vector<float> bounds) {
                        return BoundsOfLayer(bounds, layers, hidden, layer);
                      });
    } else {
      scope.AddValues(std::vector<float>(hidden), &MixerWeights::lower_bound);
    }
    if (m.out_norm.affine) scope.Add({"g_norm.weight"}, {hidden}, &MixerWeights::out_norm);
    scope.Add({"o_proj.weight"}, {hidden, hidden}, &MixerWeights::out);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kHgrn2Family = {"hgrn2", &Parse, &Tensors};

}  // namespace sluice
