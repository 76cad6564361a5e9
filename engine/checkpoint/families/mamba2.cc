// Mamba-2 (arXiv 2405.21060), per head j, which reads group j / (H / G) of B and C:
//   dt = clamp(softplus(x_dt + dt_bias)),  S <- e^(-dt e^A_log) S + B (dt x)^T,  y = C^T S + D x
// Three makers write it: transformers and flash-linear-attention, both as model_type mamba2, and
// state-spaces' mamba_ssm, whose config.json has an ssm_cfg and no model_type.
#include "engine/checkpoint/families/mamba2.h"

#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  int64_t vocab = 0, layers = 0, hidden = 0;
  int64_t heads = 0, head_dim = 0, groups = 0, state = 0, taps = 0;
  bool bias = false, conv_bias = true;
  bool wide_skip = false;         // D has a value for each channel
  bool gated_norm = true;         // else the gate alone
  bool norm_before_gate = false;  //
  float eps = 1e-5f;
  double dt_min = 0.0, dt_max = std::numeric_limits<double>::infinity();

  int64_t inner() const { return heads * head_dim; }
};

// A pair of numbers [least, most], null, or missing.
void ReadLimit(const char* name, ConfigReader* reader, Shape* s) {
  const Json* limit = reader->Find({name});
  if (limit == nullptr || limit->is_null()) return;
  std::optional<double> least, most;
  if (limit->is_array() && limit->size() == 2) {
    least = NumberOf((*limit)[0]);
    most = NumberOf((*limit)[1]);
  }
  if (!least || !most || !(*least >= 0 && *least < 1e30 && *least <= *most)) {
    reader->Refuse(absl::StrCat(name, " is ", PrintableValue(*limit),
                                ", must be [least, most] with 0 <= least <= most"));
    return;
  }
  s->dt_min = *least;
  s->dt_max = *most;
}

// Heads, and their width, from what the file says of them: inner width = heads * head_dim.
void CheckHeads(ConfigReader* reader, std::optional<int64_t> heads, int64_t expand, Shape* s) {
  const int64_t inner = expand * s->hidden;
  if (inner % s->head_dim != 0 || (heads && *heads != inner / s->head_dim)) {
    reader->Refuse(absl::StrCat(heads ? absl::StrCat("num_heads is ", *heads, ", must be")
                                      : std::string("head_dim must divide"),
                                " expand ", expand, " times hidden_size ", s->hidden,
                                heads ? " by head_dim " : ", and is ", s->head_dim));
    return;
  }
  s->heads = inner / s->head_dim;
  if (s->heads % s->groups != 0) {
    reader->Refuse(absl::StrCat("n_groups is ", s->groups, ", must divide the ", s->heads,
                                " heads (num_heads)"));
  }
}

// transformers' and flash-linear-attention's fields. The two have different defaults; eps has
// another name in each.
void ReadHuggingFace(ConfigReader* reader, ModelConfig* config, Shape* s) {
  const bool fla = reader->Has("norm_eps") && !reader->Has("layer_norm_epsilon");
  reader->RequireWord("hidden_act", {"silu", "swish"}, "\"silu\" or \"swish\"");
  s->hidden = reader->Integer({"hidden_size"}, fla ? 2048 : 4096, 1, 65536);
  s->layers = reader->Integer({"num_hidden_layers"}, fla ? 48 : 64, 1, 1024);
  s->vocab = reader->Integer({"vocab_size"}, fla ? 32000 : 32768, 1, 1 << 24);
  s->head_dim = reader->Integer({"head_dim"}, 64, 1, 65536);
  s->state = reader->Integer({"state_size"}, 128, 1, 65536);
  s->groups = reader->Integer({"n_groups"}, fla ? 1 : 8, 1, 1024);
  s->taps = reader->Integer({"conv_kernel"}, 4, 1, 64);
  s->bias = reader->Boolean({"use_bias"}, false);
  s->conv_bias = reader->Boolean({"use_conv_bias"}, true);
  s->eps = static_cast<float>(reader->Number({"layer_norm_epsilon", "norm_eps"}, 1e-5, 1e-30, 1));
  ReadLimit(reader->Has("dt_limit") ? "dt_limit" : "time_step_limit", reader, s);
  // flash-linear-attention from 0.5.0 on means these; others write norm_before_gate and ignore it.
  const bool means_it =
      reader->Find({"dt_limit"}) != nullptr || reader->Find({"D_has_hdim"}) != nullptr;
  s->wide_skip = reader->OptionalBoolean({"D_has_hdim"}).value_or(false);
  s->norm_before_gate = reader->OptionalBoolean({"norm_before_gate"}).value_or(false) && means_it;
  if (fla) s->gated_norm = reader->OptionalBoolean({"rmsnorm"}).value_or(true);
  config->tied = reader->Boolean({"tie_word_embeddings"}, false);
  CheckHeads(reader, reader->OptionalInteger({"num_heads"}, 1, 65536),
             reader->Integer({"expand"}, 2, 1, 64), s);
}

// mamba_ssm's fields.
void ReadStateSpaces(ConfigReader* reader, ModelConfig* config, Shape* s) {
  const std::string section = absl::StrCat(reader->file_name(), ": ssm_cfg");
  const Json* object = reader->Find({"ssm_cfg"});
  if (!object->is_object()) {
    return reader->Refuse(
        absl::StrCat("ssm_cfg is ", PrintableValue(*object), ", must be an object"));
  }
  ConfigReader ssm(*object, section);
  ConfigReader* cfg = &ssm;
  // Without a layer it is Mamba-1, another core.
  if (!cfg->Has("layer")) cfg->Refuse("layer is missing, must be \"Mamba2\"");
  cfg->RequireWord("layer", {"Mamba2"}, "\"Mamba2\"");
  config->default_bos = config->default_eos = 0;  // GPT-NeoX's <|endoftext|>
  s->hidden = reader->Integer({"d_model"}, 2560, 1, 65536);
  s->layers = reader->Integer({"n_layer"}, 64, 1, 1024);
  const int64_t vocab = reader->Integer({"vocab_size"}, 50277, 1, 1 << 24);
  const int64_t multiple = reader->Integer({"pad_vocab_size_multiple"}, 8, 1, 1 << 20);
  s->vocab = (vocab + multiple - 1) / multiple * multiple;
  if (reader->Integer({"d_intermediate"}, 0, 0, 1 << 20) != 0) {
    reader->Refuse("d_intermediate is not 0: layers with an MLP are not supported");
  }
  reader->RequireNull("attn_layer_idx", "softmax attention layers");
  reader->RequireBoolean("rms_norm", true);
  config->tied = reader->Boolean({"tie_embeddings"}, true);
  cfg->RequireNull("d_ssm", "inner widths with a part outside of the mixer");
  s->head_dim = cfg->Integer({"headdim"}, 64, 1, 65536);
  s->state = cfg->Integer({"d_state"}, 128, 1, 65536);
  s->groups = cfg->Integer({"ngroups"}, 1, 1, 1024);
  s->taps = cfg->Integer({"d_conv"}, 4, 1, 64);
  s->bias = cfg->Boolean({"bias"}, false);
  s->conv_bias = cfg->Boolean({"conv_bias"}, true);
  s->wide_skip = cfg->Boolean({"D_has_hdim"}, false);
  s->gated_norm = cfg->Boolean({"rmsnorm"}, true);
  s->norm_before_gate = cfg->Boolean({"norm_before_gate"}, false);
  ReadLimit("dt_limit", cfg, s);
  CheckHeads(cfg, std::nullopt, cfg->Integer({"expand"}, 2, 1, 64), s);
  reader->Take(ssm);
}

MixerSpec Mixer(const Shape& s) {
  MixerSpec m;
  m.decay = Decay::kHead;
  m.gate = GateMap::kMamba2;
  m.q_heads = m.k_heads = s.groups;
  m.v_heads = m.state_heads = s.heads;
  m.key_width = m.dk = s.state;
  m.dv = s.head_dim;
  m.out_gate = {0, s.inner()};            // z
  m.v = {m.out_gate.end(), s.inner()};    // x
  m.k = {m.v.end(), s.groups * s.state};  // B
  m.q = {m.k.end(), s.groups * s.state};  // C
  m.gate_in = {m.q.end(), s.heads};       // dt
  m.in_dim = m.gate_in.end();
  m.conv = {.taps = s.taps, .silu = true, .bias = s.conv_bias};
  m.dt_min = static_cast<float>(s.dt_min);
  m.dt_max = s.dt_max > 1e30 ? kInfinity : static_cast<float>(s.dt_max);
  m.skip = s.wide_skip ? Skip::kChannel : Skip::kHead;
  m.out_norm = {.kind = s.gated_norm ? NormKind::kRms : NormKind::kNone, .eps = s.eps};
  m.norm_span = NormSpan::kGroup;
  m.norm_groups = s.groups;
  m.gate_before_norm = !s.norm_before_gate;
  return m;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  Shape s;
  reader->RequireNull("quantization_config", "quantized weights");
  if (reader->Has("ssm_cfg") && !reader->Has("hidden_size")) {
    ReadStateSpaces(reader, config, &s);
  } else {
    ReadHuggingFace(reader, config, &s);
  }
  reader->RequireNull("attn_cfg", "softmax attention layers");
  if (!reader->status().ok()) return;
  const Norm norm = {.eps = s.eps};
  ModelSpec spec;
  spec.vocab = s.vocab;
  spec.hidden = s.hidden;
  spec.final_norm = norm;
  LayerSpec layer;
  layer.branches.push_back({norm, {Mixer(s)}});
  spec.layers.assign(s.layers, layer);
  config->spec = std::move(spec);
  config->biases = s.bias;
  config->identity = absl::StrCat(
      "mamba2 vocab=", s.vocab, " layers=", s.layers, " hidden=", s.hidden, " heads=", s.heads,
      " head_dim=", s.head_dim, " groups=", s.groups, " state=", s.state, " conv_size=", s.taps,
      " bias=", s.bias, " conv_bias=", s.conv_bias, " wide_skip=", s.wide_skip,
      " gated_norm=", s.gated_norm, " norm_before_gate=", s.norm_before_gate, " norm_eps=", s.eps,
      " dt_min=", s.dt_min, " dt_max=", s.dt_max);
}

// Rows [begin, begin + rows) of a table of `cols` columns.
Derive RowsOf(int64_t begin, int64_t rows, int64_t cols) {
  return [=](std::vector<float> values) {
    return std::vector<float>(values.begin() + begin * cols,
                              values.begin() + (begin + rows) * cols);
  };
}

// One convolution over x, B and C: here one for each.
void AddConv(const MixerSpec& m, TensorScope* scope) {
  using W = MixerWeights;
  const int64_t channels = m.v.width + m.k.width + m.q.width;
  const auto add = [&](int64_t first_row, int64_t rows, Into weight, Into bias) {
    scope->AddDerived({"conv1d.weight"}, {channels, 1, m.conv.taps}, weight, rows * m.conv.taps,
                      RowsOf(first_row, rows, m.conv.taps));
    if (!m.conv.bias) return;
    scope->AddDerived({"conv1d.bias"}, {channels}, bias, rows, RowsOf(first_row, rows, 1));
  };
  add(0, m.v.width, &W::conv_v, &W::conv_v_bias);
  add(m.v.width, m.k.width, &W::conv_k, &W::conv_k_bias);
  add(m.v.width + m.k.width, m.q.width, &W::conv_q, &W::conv_q_bias);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  TensorScope outside = table->Outside();
  outside.Add({"backbone.embeddings.weight", "backbone.embedding.weight"}, {spec.vocab, hidden},
              &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, ".");
    const auto& m = std::get<MixerSpec>(spec.layers[i].branches[0].units[0]);
    table->Branch(i, 0, prefix).Add({"norm.weight"}, {hidden}, &BranchWeights::norm);
    TensorScope scope = table->Unit(i, 0, 0, absl::StrCat(prefix, "mixer."));
    scope.Add({"in_proj.weight"}, {m.in_dim, hidden}, &MixerWeights::in);
    if (config.biases) scope.Add({"in_proj.bias"}, {m.in_dim}, &MixerWeights::in_bias);
    AddConv(m, &scope);
    scope.Add({"dt_bias"}, {m.state_heads}, &MixerWeights::gate_bias);
    scope.Add({"A_log"}, {m.state_heads}, &MixerWeights::a_log);
    scope.Add({"D"}, {m.skip == Skip::kChannel ? m.out_dim() : m.state_heads}, &MixerWeights::skip);
    if (m.out_norm.kind != NormKind::kNone) {
      scope.Add({"norm.weight"}, {m.out_dim()}, &MixerWeights::out_norm);
    }
    scope.Add({"out_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
    if (config.biases) scope.Add({"out_proj.bias"}, {hidden}, &MixerWeights::out_bias);
  }
  outside.Add({"backbone.norm_f.weight"}, {hidden}, &Weights::norm);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

}  // namespace

const Family kMamba2Family = {"mamba2", &Parse, &Tensors};

}  // namespace sluice
