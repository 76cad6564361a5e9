#include "engine/checkpoint/families/transformer.h"

#include "engine/checkpoint/families/fla_attention.h"
#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {
namespace {

// The class has no field for it.
constexpr float kQkNormEps = 1e-5f;

void Parse(ConfigReader* reader, ModelConfig* config) {
  reader->RequireNull("attn", "layers of another kind in a transformer");
  FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  d.affine = true;  // elementwise_affine changes nothing here
  AttentionShape s;
  s.heads = reader->Integer({"num_heads", "num_attention_heads"}, 32, 1, 1024);
  s.kv_heads =
      reader->OptionalInteger({"num_kv_heads", "num_key_value_heads"}, 1, 1024).value_or(s.heads);
  s.head_dim = FlaHeadDim(d.hidden, s.heads, reader);
  s.qkv_bias = reader->Boolean({"qkv_bias"}, false);
  s.qk_norm = reader->Boolean({"qk_norm"}, false);
  s.qk_norm_eps = kQkNormEps;
  s.window = reader->OptionalInteger({"window_size"}, 1, 1 << 24).value_or(0);
  const double theta = reader->OptionalNumber({"rope_theta"}, 1.0001, 1e15).value_or(10000);
  CheckAttention(s, "num_heads", "num_kv_heads", reader);
  if (!reader->status().ok()) return;
  s.rope = DefaultRope(s.head_dim, theta);
  config->spec = d.Spec(AttentionMixer(s));
  for (int64_t layer = 0; layer < d.layers; ++layer) {
    config->attention[layer] = AttentionParts(s);
  }
  config->identity = d.Identity("transformer") + AttentionIdentity(s);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  FlaTensors(config, files, nullptr, table);
}

}  // namespace

const Family kTransformerFamily = {"transformer", &Parse, &Tensors};

}  // namespace sluice
