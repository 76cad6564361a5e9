// transformers' OlmoHybridForCausalLM. Linear layers are gated DeltaNet (gated_deltanet.cc) with
// norms before their halves; softmax layers have norms behind them, x += norm(attn(x)), and one
// norm over all heads of q, and of k.
#include "engine/checkpoint/families/olmo_hybrid.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_delta.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr HfDefaults kDefaults = {
    .vocab = 100352, .hidden = 3840, .intermediate = 11008, .heads = 30, .max_positions = 65536};
constexpr int32_t kDefaultEos = 100257;
constexpr float kDeltaNormEps = 1e-5f;  // the class's, whatever the config says

constexpr NamedValue<LayerKind> kKinds[] = {{"linear_attention", LayerKind::kLinear},
                                            {"full_attention", LayerKind::kSoftmax}};

FlaDeltaShape ReadDelta(ConfigReader* reader, int64_t hidden, int64_t heads) {
  FlaDeltaShape s;
  s.heads = reader->OptionalInteger({"linear_num_key_heads"}, 1, 1024).value_or(heads);
  s.v_heads = reader->OptionalInteger({"linear_num_value_heads"}, 1, 1024).value_or(heads);
  s.dk = reader->OptionalInteger({"linear_key_head_dim"}, 1, 65536)
             .value_or(std::max<int64_t>(3 * hidden / (4 * s.heads), 1));
  s.dv = reader->OptionalInteger({"linear_value_head_dim"}, 1, 65536).value_or(2 * s.dk);
  s.conv_size = reader->Integer({"linear_conv_kernel_dim"}, 4, 1, 64);
  s.negative_eigenvalues = reader->Boolean({"linear_allow_neg_eigval"}, true);
  if (s.v_heads % s.heads != 0) {
    reader->Refuse(absl::StrCat("linear_num_value_heads is ", s.v_heads,
                                ", must be a multiple of linear_num_key_heads ", s.heads));
  }
  return s;
}

MixerSpec DeltaMixer(const FlaDeltaShape& s) {
  FlaDecoder decoder;
  decoder.norm_eps = kDeltaNormEps;
  MixerSpec m = FlaDeltaMixer(decoder, s);
  m.conv.bias = false;
  m.decay = Decay::kHead;
  m.gate = GateMap::kGatedDelta;
  m.out_gate = {m.in_dim, m.out_dim()};
  m.gate_in = {m.out_gate.end(), m.state_heads};
  m.beta = {m.gate_in.end(), m.state_heads};
  m.in_dim = m.beta.end();
  return m;
}

// Without a theta, or with one that is null, there are no positions.
bool HasPositions(const ConfigReader& reader) {
  const Json* object = reader.Find({"rope_parameters"});
  if (object != nullptr && object->is_object() && object->contains("rope_theta")) {
    return !(*object)["rope_theta"].is_null();
  }
  return reader.Has("rope_theta");
}

std::vector<LayerKind> KindsByInterval(int64_t layers) {
  std::vector<LayerKind> kinds;
  for (int64_t i = 0; i < layers; ++i) {
    kinds.push_back(i % 4 == 3 ? LayerKind::kSoftmax : LayerKind::kLinear);
  }
  return kinds;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  config->default_eos = kDefaultEos;
  const HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  AttentionShape s = d.attention;
  s.qk_norm = s.norms_all_heads = true;
  s.qk_norm_eps = d.norm_eps;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  const FlaDeltaShape delta = ReadDelta(reader, d.hidden, s.heads);
  const std::vector<LayerKind> kinds =
      ReadLayerKinds(reader, {"layer_types"}, d.layers, kKinds,
                     "\"linear_attention\" or \"full_attention\"", KindsByInterval(d.layers));
  if (!reader->status().ok()) return;
  if (HasPositions(*reader)) {
    s.rope = ReadRope(reader, s.head_dim, 10000, config->max_position_embeddings);
  }
  if (!reader->status().ok()) return;

  config->spec = d.Outside();
  const Norm none = {.kind = NormKind::kNone};
  const MlpSpec mlp = {.intermediate = d.intermediate};
  for (int64_t i = 0; i < d.layers; ++i) {
    LayerSpec& layer = config->spec.layers.emplace_back();
    if (kinds[i] == LayerKind::kSoftmax) {
      config->attention[i] = AttentionParts(s);
      layer.branches.push_back({none, {AttentionMixer(s)}, d.norm()});
      layer.branches.push_back({none, {mlp}, d.norm()});
    } else {
      layer.branches.push_back({d.norm(), {DeltaMixer(delta)}});
      layer.branches.push_back({d.norm(), {mlp}});
    }
  }
  config->identity = absl::StrCat(d.Identity("olmo_hybrid"), " layer_types=", LayerKindsText(kinds),
                                  delta.Identity(), AttentionIdentity(s));
}

// The makers' files have a convolution for each of q, k and v. transformers' save_pretrained cuts
// the three, one behind the other, into equal parts under the same names.
void AddConvs(const MixerSpec& m, const TensorSource& files, const std::string& prefix,
              TensorScope* scope) {
  constexpr const char* kNames[] = {"q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"};
  const Columns targets[] = {m.q, m.k, m.v};
  const Into into[] = {&MixerWeights::conv_q, &MixerWeights::conv_k, &MixerWeights::conv_v};
  const int64_t taps = m.conv.taps, all = m.v.end();
  bool equal = all % 3 == 0;
  for (const char* name : kNames)
    equal = equal && files.Rows(absl::StrCat(prefix, name)) == all / 3;
  for (int i = 0; i < 3; ++i) {
    int64_t begin = 0;
    for (int j = 0; j < 3; ++j) {
      const int64_t rows = equal ? all / 3 : targets[j].width;
      const int64_t first = std::max(begin, targets[i].offset);
      const int64_t last = std::min(begin + rows, targets[i].end());
      if (first < last) {
        scope->AddDerived({kNames[j]}, {rows, 1, taps}, into[i], (last - first) * taps,
                          TakeRows({{first - begin, last - first}}, taps));
      }
      begin += rows;
    }
  }
}

void DeltaTensors(const MixerSpec& m, int64_t hidden, const TensorSource& files,
                  const std::string& prefix, TensorScope scope) {
  using W = MixerWeights;
  AddFlaDeltaInputs(m, hidden, &scope);
  scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &W::in);
  scope.Add({"a_proj.weight"}, {m.state_heads, hidden}, &W::in);
  scope.Add({"b_proj.weight"}, {m.state_heads, hidden}, &W::in);
  AddConvs(m, files, prefix, &scope);
  scope.Add({"A_log"}, {m.state_heads}, &W::a_log);
  scope.Add({"dt_bias"}, {m.state_heads}, &W::gate_bias);
  scope.Add({"o_norm.weight"}, {m.dv}, &W::out_norm);
  scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &W::out);
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
    TensorScope first = table->Branch(i, 0, prefix), second = table->Branch(i, 1, prefix);
    // The later names are those that save_pretrained writes.
    if (m.core == Core::kSoftmax) {
      first.Add({"post_attention_layernorm.weight", "feedforward_layer_norm.weight"}, {hidden},
                &BranchWeights::out_norm);
      AttentionTensors(m, config.attention.at(i), hidden,
                       table->Unit(i, 0, 0, prefix + "self_attn."));
      second.Add({"post_feedforward_layernorm.weight"}, {hidden}, &BranchWeights::out_norm);
    } else {
      first.Add({"attention_layer_norm.weight", "input_layernorm.weight"}, {hidden},
                &BranchWeights::norm);
      const std::string linear = prefix + "linear_attn.";
      DeltaTensors(m, hidden, files, linear, table->Unit(i, 0, 0, linear));
      second.Add({"feedforward_layer_norm.weight", "post_attention_layernorm.weight"}, {hidden},
                 &BranchWeights::norm);
    }
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "gate_proj", "up_proj", "down_proj",
                /*bias=*/false, hidden, table->Unit(i, 1, 0, prefix + "mlp."));
  }
  outside.Add({"model.norm.weight"}, {hidden}, &Weights::norm);
  AddHead(config, files, &outside);
}

}  // namespace

const Family kOlmoHybridFamily = {"olmo_hybrid", &Parse, &Tensors};

}  // namespace sluice
