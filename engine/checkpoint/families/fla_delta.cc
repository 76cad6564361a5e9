#include "engine/checkpoint/families/fla_delta.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace sluice {

std::string FlaDeltaShape::Identity() const {
  return absl::StrCat(" heads=", heads, " v_heads=", v_heads, " dk=", dk, " dv=", dv,
                      " conv_size=", conv_size, " negative_eigenvalues=", negative_eigenvalues);
}

void ReadFlaDelta(ConfigReader* reader, FlaDeltaShape* shape) {
  const int64_t conv_size = reader->Integer({"conv_size"}, 4, 1, 64);
  shape->conv_size = reader->Boolean({"use_short_conv"}, true) ? conv_size : 0;
  shape->negative_eigenvalues = reader->OptionalBoolean({"allow_neg_eigval"}).value_or(false);
}

void ReadFlaDeltaHeads(ConfigReader* reader, int64_t default_heads, int64_t default_head_dim,
                       double default_expand_v, FlaDeltaShape* shape) {
  shape->heads = reader->Integer({"num_heads"}, default_heads, 1, 1024);
  shape->v_heads = reader->OptionalInteger({"num_v_heads"}, 1, 1024).value_or(shape->heads);
  shape->dk = reader->Integer({"head_dim"}, default_head_dim, 1, 65536);
  const double expand_v = reader->Number({"expand_v"}, default_expand_v, 1e-6, 64);
  if (shape->v_heads % shape->heads != 0) {
    reader->Refuse(absl::StrCat("num_v_heads is ", shape->v_heads,
                                ", must be a multiple of num_heads ", shape->heads));
  }
  const double width = static_cast<double>(shape->dk) * expand_v;
  shape->dv = std::llround(width);
  if (std::abs(width - static_cast<double>(shape->dv)) > 1e-6 * width || shape->dv < 1) {
    reader->Refuse(absl::StrCat("head_dim ", shape->dk, " times expand_v ", expand_v, " is ", width,
                                ", must be a whole number"));
  }
}

MixerSpec FlaDeltaMixer(const FlaDecoder& decoder, const FlaDeltaShape& shape) {
  MixerSpec m;
  m.core = Core::kDelta;
  m.decay = Decay::kNone;
  m.gate = GateMap::kNone;
  m.q_heads = m.k_heads = shape.heads;
  m.v_heads = m.state_heads = shape.v_heads;
  m.key_width = m.dk = shape.dk;
  m.dv = shape.dv;
  m.q = {0, shape.heads * shape.dk};
  m.k = {m.q.end(), shape.heads * shape.dk};
  m.v = {m.k.end(), shape.v_heads * shape.dv};
  m.in_dim = m.v.end();
  m.conv = {.taps = shape.conv_size, .silu = true, .bias = shape.conv_size > 0};
  if (shape.conv_size == 0) m.q_map = m.k_map = m.v_map = FeatureMap::kSilu;
  m.q_norm = m.k_norm = QkNorm::kL2;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(shape.dk));
  m.beta_max = shape.negative_eigenvalues ? 2.0f : 1.0f;
  m.out_norm = {.eps = decoder.norm_eps};
  return m;
}

void AddFlaDeltaInputs(const MixerSpec& m, int64_t hidden, TensorScope* scope) {
  scope->Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
  scope->Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
  scope->Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
}

void AddFlaDeltaRest(const MixerSpec& m, int64_t hidden, const TensorSource& files,
                     const std::string& prefix, TensorScope* scope) {
  AddShortConvs(m, "q", "k", "v", scope);
  const auto bias = [&](const char* name, int64_t channels, Into into) {
    if (files.Has(absl::StrCat(prefix, name))) scope->Add({name}, {channels}, into);
  };
  if (m.conv.taps > 0) {
    bias("q_conv1d.bias", m.q.width, &MixerWeights::conv_q_bias);
    bias("k_conv1d.bias", m.k.width, &MixerWeights::conv_k_bias);
    bias("v_conv1d.bias", m.v.width, &MixerWeights::conv_v_bias);
  }
  // Before June 2024 the norm had no letter. From then to February 2025 that name was another
  // norm's, the one before the mixer (FlaTensors).
  const bool old = !files.Has(absl::StrCat(prefix, "o_norm.weight")) &&
                   files.Rows(absl::StrCat(prefix, "norm.weight")) == m.dv;
  scope->Add({old ? "norm.weight" : "o_norm.weight"}, {m.dv}, &MixerWeights::out_norm);
  scope->Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
}

}  // namespace sluice
