// transformers' Qwen3_5ForCausalLM, and the text part of Qwen3_5ForConditionalGeneration. Linear
// layers are gated DeltaNet (gated_deltanet.cc), softmax layers have an output gate for each
// channel and turn the first part of a head. Norms hold w of 1 + w, but for that of the linear
// layers' output.
#include "engine/checkpoint/families/qwen3_5.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_delta.h"
#include "engine/checkpoint/families/hf_decoder.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

constexpr HfDefaults kDefaults = {.vocab = 248320,
                                  .intermediate = 12288,
                                  .heads = 16,
                                  .kv_heads = 4,
                                  .head_dim = 256,
                                  .max_positions = 32768};

constexpr NamedValue<LayerKind> kKinds[] = {{"linear_attention", LayerKind::kLinear},
                                            {"full_attention", LayerKind::kSoftmax}};

FlaDeltaShape ReadDelta(ConfigReader* reader) {
  FlaDeltaShape s;
  s.heads = reader->Integer({"linear_num_key_heads"}, 16, 1, 1024);
  s.v_heads = reader->Integer({"linear_num_value_heads"}, 32, 1, 1024);
  s.dk = reader->Integer({"linear_key_head_dim"}, 128, 1, 65536);
  s.dv = reader->Integer({"linear_value_head_dim"}, 128, 1, 65536);
  s.conv_size = reader->Integer({"linear_conv_kernel_dim"}, 4, 1, 64);
  if (s.v_heads % s.heads != 0) {
    reader->Refuse(absl::StrCat("linear_num_value_heads is ", s.v_heads,
                                ", must be a multiple of linear_num_key_heads ", s.heads));
  }
  return s;
}

MixerSpec DeltaMixer(const HfDecoder& d, const FlaDeltaShape& s) {
  FlaDecoder decoder;
  decoder.norm_eps = d.norm_eps;
  MixerSpec m = FlaDeltaMixer(decoder, s);
  m.conv.bias = false;
  m.decay = Decay::kHead;
  m.gate = GateMap::kGatedDelta;
  m.out_gate = {m.in_dim, m.out_dim()};        // z
  m.beta = {m.out_gate.end(), m.state_heads};  // b
  m.gate_in = {m.beta.end(), m.state_heads};   // a
  m.in_dim = m.gate_in.end();
  return m;
}

// Every full_attention_interval-th layer, where the config has no list.
std::vector<LayerKind> KindsByInterval(ConfigReader* reader, int64_t layers) {
  const int64_t interval = reader->Integer({"full_attention_interval"}, 4, 1, 1024);
  std::vector<LayerKind> kinds;
  for (int64_t i = 0; i < layers; ++i) {
    kinds.push_back((i + 1) % interval == 0 ? LayerKind::kSoftmax : LayerKind::kLinear);
  }
  return kinds;
}

void ParseText(ConfigReader* reader, ModelConfig* config) {
  NoDefaultTokens(config);
  HfDecoder d = ReadHfDecoder(reader, kDefaults, config);
  reader->RequireBoolean("attn_output_gate", true);
  reader->RequireNull("num_experts", "experts");
  AttentionShape& s = d.attention;
  s.gated = true;
  s.qk_norm = true;
  s.qk_norm_eps = d.norm_eps;
  s.qkv_bias = s.out_bias = reader->Boolean({"attention_bias"}, false);
  const FlaDeltaShape delta = ReadDelta(reader);
  const std::vector<LayerKind> kinds = ReadLayerKinds(reader, {"layer_types"}, d.layers, kKinds,
                                                      "\"linear_attention\" or \"full_attention\"",
                                                      KindsByInterval(reader, d.layers));
  if (!reader->status().ok()) return;
  s.rope = ReadRope(reader, ReadRotaryDims(reader, s.head_dim, 0.25), 10000,
                    config->max_position_embeddings);
  if (!reader->status().ok()) return;

  config->spec = d.Outside();
  const MixerSpec linear = DeltaMixer(d, delta), softmax = AttentionMixer(s);
  AttentionConfig parts = AttentionParts(s);
  parts.zero_centred_norms = true;
  for (int64_t i = 0; i < d.layers; ++i) {
    const bool full = kinds[i] == LayerKind::kSoftmax;
    if (full) config->attention[i] = parts;
    LayerSpec& layer = config->spec.layers.emplace_back();
    layer.branches.push_back({d.norm(), {full ? softmax : linear}});
    layer.branches.push_back({d.norm(), {MlpSpec{.intermediate = d.intermediate}}});
  }
  config->identity =
      absl::StrCat(d.Identity("qwen3_5"), " layer_types=", LayerKindsText(kinds), delta.Identity(),
                   AttentionIdentity(s), " rotary_dims=", softmax.rope_dims);
}

// The wrapper's fields of vision change no text.
void ParseWrapped(ConfigReader* reader, ModelConfig* config) {
  const nlohmann::json* text = reader->Find({"text_config"});
  if (text == nullptr) return ParseText(reader, config);
  reader->RequireNull("quantization_config", "quantized weights");
  if (!text->is_object()) {
    return reader->Refuse(
        absl::StrCat("text_config is ", PrintableValue(*text), ", must be an object"));
  }
  const std::string section = absl::StrCat(reader->file_name(), ": text_config");
  ConfigReader own(*text, section);
  config->text_section = true;
  ParseText(&own, config);
  reader->Take(own);
}

// transformers 5 wraps the decoder one way, earlier files another.
std::string Prefix(const TensorSource& files) {
  for (const char* prefix : {"model.language_model.", "language_model.model."}) {
    if (files.Has(absl::StrCat(prefix, "embed_tokens.weight"))) return prefix;
  }
  return "model.";
}

// One convolution over q, k and v: here one for each.
void AddConv(const MixerSpec& m, TensorScope* scope) {
  const int64_t channels = m.v.end(), taps = m.conv.taps;
  const auto add = [&](const Columns& columns, Into into) {
    scope->AddDerived({"conv1d.weight"}, {channels, 1, taps}, into, columns.width * taps,
                      TakeRows({{columns.offset, columns.width}}, taps));
  };
  add(m.q, &MixerWeights::conv_q);
  add(m.k, &MixerWeights::conv_k);
  add(m.v, &MixerWeights::conv_v);
}

void DeltaTensors(const MixerSpec& m, int64_t hidden, TensorScope scope) {
  using W = MixerWeights;
  scope.Add({"in_proj_qkv.weight"}, {m.v.end(), hidden}, &W::in);
  scope.Add({"in_proj_z.weight"}, {m.out_gate.width, hidden}, &W::in);
  scope.Add({"in_proj_b.weight"}, {m.beta.width, hidden}, &W::in);
  scope.Add({"in_proj_a.weight"}, {m.gate_in.width, hidden}, &W::in);
  AddConv(m, &scope);
  scope.Add({"A_log"}, {m.state_heads}, &W::a_log);
  scope.Add({"dt_bias"}, {m.state_heads}, &W::gate_bias);
  scope.Add({"norm.weight"}, {m.dv}, &W::out_norm);
  scope.Add({"out_proj.weight"}, {hidden, m.out_dim()}, &W::out);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  const std::string model = Prefix(files);
  const auto add_norm = [&](const char* name, Into into, TensorScope scope) {
    scope.AddDerived({name}, {hidden}, into, hidden, OnePlus());
  };
  TensorScope outside = table->Outside();
  table->Outside(model).Add({"embed_tokens.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < static_cast<int64_t>(spec.layers.size()); ++i) {
    const std::string prefix = absl::StrCat(model, "layers.", i, ".");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    const auto& m = std::get<MixerSpec>(branches[0].units[0]);
    add_norm("input_layernorm.weight", &BranchWeights::norm, table->Branch(i, 0, prefix));
    if (m.core == Core::kSoftmax) {
      AttentionTensors(m, config.attention.at(i), hidden,
                       table->Unit(i, 0, 0, prefix + "self_attn."));
    } else {
      DeltaTensors(m, hidden, table->Unit(i, 0, 0, prefix + "linear_attn."));
    }
    add_norm("post_attention_layernorm.weight", &BranchWeights::norm, table->Branch(i, 1, prefix));
    AddGatedMlp(std::get<MlpSpec>(branches[1].units[0]), "gate_proj", "up_proj", "down_proj",
                /*bias=*/false, hidden, table->Unit(i, 1, 0, prefix + "mlp."));
  }
  add_norm("norm.weight", &Weights::norm, table->Outside(model));
  AddHead(config, files, &outside);
  for (const char* prefix : {"model.visual.", "visual."}) table->Skip(prefix, "the vision tower");
  for (const char* prefix : {"mtp.", "model.mtp."}) table->Skip(prefix, "multi-token prediction");
}

}  // namespace

const Family kQwen35Family = {"qwen3_5", &ParseWrapped, &Tensors};
const Family kQwen35TextFamily = {"qwen3_5_text", &ParseWrapped, &Tensors};

}  // namespace sluice
