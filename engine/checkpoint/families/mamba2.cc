// Mamba-2 alone (mamba_layer.h). Three makers write it: transformers and flash-linear-attention,
// both as model_type mamba2, and state-spaces' mamba_ssm, whose config.json has an ssm_cfg and no
// model_type.
#include "engine/checkpoint/families/mamba2.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/mamba_layer.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

struct Shape : MambaShape {
  int64_t vocab = 0, layers = 0, hidden = 0;
  int64_t first_padding = 0;  // row of the vocabulary; 0: none is padded
  bool bias = false;
};

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
  ReadTimeStepLimit(reader->Has("dt_limit") ? "dt_limit" : "time_step_limit", reader, s);
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
  if (s->vocab > vocab) s->first_padding = vocab;
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
  ReadTimeStepLimit("dt_limit", cfg, s);
  CheckHeads(cfg, std::nullopt, cfg->Integer({"expand"}, 2, 1, 64), s);
  reader->Take(ssm);
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
  config->mamba.in_bias = config->mamba.out_bias = s.bias;
  const Norm norm = {.eps = s.eps};
  ModelSpec spec;
  spec.vocab = s.vocab;
  spec.first_unsampled = s.first_padding;
  spec.hidden = s.hidden;
  spec.final_norm = norm;
  LayerSpec layer;
  layer.branches.push_back({norm, {MambaMixer(s, config->mamba)}});
  spec.layers.assign(s.layers, layer);
  config->spec = std::move(spec);
  config->identity = absl::StrCat(
      "mamba2 vocab=", s.vocab, " layers=", s.layers, " hidden=", s.hidden, " heads=", s.heads,
      " head_dim=", s.head_dim, " groups=", s.groups, " state=", s.state, " conv_size=", s.taps,
      " bias=", s.bias, " conv_bias=", s.conv_bias, " wide_skip=", s.wide_skip,
      " gated_norm=", s.gated_norm, " norm_before_gate=", s.norm_before_gate, " norm_eps=", s.eps,
      " dt_min=", s.dt_min, " dt_max=", s.dt_max);
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
    MambaTensors(m, config.mamba, hidden, table->Unit(i, 0, 0, absl::StrCat(prefix, "mixer.")));
  }
  outside.Add({"backbone.norm_f.weight"}, {hidden}, &Weights::norm);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

}  // namespace

const Family kMamba2Family = {"mamba2", &Parse, &Tensors};

}  // namespace sluice
