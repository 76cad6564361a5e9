// Tests the meaning of each family's config.json, and its refusals: every refusal names the field,
// what it says and what it must be. The tests start from the golden checkpoints' own files.
#include "engine/checkpoint/families.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/tensor_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cores.h"
#include "kernels/state_table.h"
#include "nlohmann/json.hpp"
#include "tests/engine/checkpoint/recording_backend.h"
#include "tests/engine/checkpoint/test_model.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

std::string Golden(const std::string& variant) {
  return SourcePath(absl::StrCat("tests/goldens/", variant));
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The variant's config with these fields changed and `without` taken away.
absl::StatusOr<ModelConfig> ParseChanged(const std::string& variant, const Json& changes,
                                         const std::vector<std::string>& without = {}) {
  absl::StatusOr<ModelConfig> base = ReadModelConfig(Golden(variant));
  if (!base.ok()) return base;
  std::string text = ReadFile(Golden(variant) + "/config.json");
  // Python writes a value that JSON has no word for.
  for (size_t at; (at = text.find(" Infinity")) != std::string::npos;)
    text.replace(at, 9, " 1e999");
  Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (config.is_discarded()) {
    for (size_t at; (at = text.find("1e999")) != std::string::npos;) {
      text.replace(at, 5, "{\"__float__\": \"Infinity\"}");
    }
    config = Json::parse(text);
  }
  for (const std::string& name : without) config.erase(name);
  config.merge_patch(changes);
  return ParseConfig(config.dump(), "config.json");
}

struct Refusal {
  const char* variant;
  const char* changes;
  const char* message;
};

constexpr Refusal kRefusals[] = {
    // Refusals that all of flash-linear-attention's models share.
    {"retnet/base", R"({"hidden_act": "powlu"})", "hidden_act is \"powlu\", must be \"swish\""},
    {"retnet/base", R"({"attn": {"num_heads": 4}})", "attn: layers is missing, must be a list"},
    {"retnet/base", R"({"attn": {"layers": [0]}})", "attn: num_heads is missing"},
    {"hgrn2/base", R"({"attn": {"layers": [9], "num_heads": 4}})",
     "attn: layers holds 9, must hold integers in [0, "},
    {"hgrn2/base", R"({"attn": {"layers": ["a"], "num_heads": 4}})", "attn: layers holds \"a\""},
    {"linear_attn/elu", R"({"attn": 7})", "attn is 7, must be null, an object or a list"},
    {"lightnet/base", R"({"attn": {"layers": [0], "num_heads": 7}})",
     "attn: num_heads is 7, must divide hidden_size"},
    {"lightnet/base", R"({"attn": {"layers": [0], "num_heads": 4, "num_kv_heads": 3}})",
     "attn: num_kv_heads is 3, must divide num_heads 4"},
    {"variants/base", R"({"attn": {"layers": [0], "num_heads": 4, "qk_norm": true}})",
     "attn: qk_norm is true, must be null: norms of queries and keys"},
    {"gla/hybrid_window",
     R"({"attn": [{"layers": [0], "num_heads": 4}, {"layers": [0], "num_heads": 4}]})",
     "attn[1]: layers holds 0 twice"},
    {"gla/hybrid", R"({"attn": {"layers": [1], "num_heads": 4, "window_size": 0}})",
     "attn: window_size is 0"},
    // transformer
    {"transformer/base", R"({"attn": {"layers": [0], "num_heads": 4}})",
     "attn is an object, must be null: layers of another kind"},
    {"transformer/base", R"({"num_heads": 5})", "num_heads is 5, must divide hidden_size 64"},
    {"transformer/base", R"({"num_heads": 64})", "are 1, must be even"},
    {"transformer/base", R"({"num_kv_heads": 3})", "num_kv_heads is 3, must divide num_heads 4"},
    {"transformer/base", R"({"rope_theta": 0})", "rope_theta is 0"},
    // llama, mistral, qwen2, qwen3
    {"llama/rope_yarn", R"({"head_dim": 23})", "are 23, must be even"},
    {"llama/rope_linear", R"({"num_key_value_heads": 3})",
     "num_key_value_heads is 3, must divide num_attention_heads 4"},
    {"llama/rope_linear", R"({"num_attention_heads": 5})",
     "num_attention_heads is 5, must divide hidden_size 64 where there is no head_dim"},
    {"llama/rope_linear", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
    {"llama/rope_linear", R"({"quantization_config": {"bits": 4}})", "quantization_config is "},
    {"llama/rope_linear", R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})",
     "rope_scaling: type is \"dynamic\", must be \"default\", \"linear\""},
    {"llama/rope_llama3", R"({"rope_parameters": {"rope_type": "longrope"}})",
     "rope_parameters: rope_type is \"longrope\""},
    {"llama/rope_llama3", R"({"rope_parameters": {"rope_type": "proportional"}})",
     "rope_parameters: rope_type is \"proportional\""},
    {"llama/rope_llama3",
     R"({"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}})",
     "high_freq_factor is 4, must be greater than low_freq_factor 4"},
    {"llama/rope_linear", R"({"rope_scaling": 4})", "rope_scaling is 4, must be an object"},
    {"mistral/window", R"({"sliding_window": 0})", "sliding_window is 0"},
    {"llama/rope_yarn",
     R"({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8,
         "layer_types": ["full_attention"]})",
     "layer_types is a list, must be a list of num_hidden_layers 2"},
    {"llama/rope_yarn",
     R"({"model_type": "qwen3", "use_sliding_window": true, "sliding_window": 8,
         "layer_types": ["full_attention", "chunked_attention"]})",
     "layer_types holds \"chunked_attention\""},
    {"linear_attn/elu", R"({"attnres_block_size": 4})", "attnres_block_size is 4, must be null"},
    {"lightnet/base", R"({"quantization_config": {"bits": 4}})", "quantization_config is "},
    {"lightnet/base", R"({"hidden_size": 0})", "hidden_size is 0, must be an integer in [1, "},
    {"hgrn2/base", R"({"num_hidden_layers": "two"})", "num_hidden_layers is \"two\""},
    {"retnet/base", R"({"norm_eps": 0})", "norm_eps is 0, must be a number in"},
    {"retnet/base", R"({"intermediate_size": -1})", "intermediate_size is -1"},
    {"retnet/base", R"({"elementwise_affine": 1})", "elementwise_affine is 1, must be true or"},
    {"retnet/base", R"({"tie_word_embeddings": "no"})", "tie_word_embeddings is \"no\""},
    // retnet
    {"retnet/base", R"({"num_heads": 3})", "must be a multiple of num_heads 3"},
    {"retnet/base", R"({"num_kv_heads": 3})", "num_kv_heads is 3, must divide num_heads 4"},
    {"retnet/base", R"({"expand_k": 0.3})", "hidden_size 64 times expand_k 0.3 is 19.2, must be"},
    {"retnet/base", R"({"num_heads": 64})", "must be even and at most 256"},
    {"retnet/base", R"({"hidden_size": 2048, "num_heads": 4})",
     "are 512, must be even and at most"},
    {"retnet/base", R"({"feature_map": "sqrelu"})",
     "feature_map is \"sqrelu\", must be null, \"relu\""},
    {"retnet/base", R"({"feature_map": 3})", "feature_map is 3"},
    {"retnet/base", R"({"use_output_gate": 1})", "use_output_gate is 1, must be true or false"},
    {"retnet/base", R"({"use_short_conv": 1})", "use_short_conv is 1, must be true"},
    // simple_gla
    {"simple_gla/base", R"({"gate_logit_normalizer": 8})",
     "gate_logit_normalizer is 8, must be 16"},
    {"simple_gla/base", R"({"gate_fn": "relu"})", "gate_fn is \"relu\", must be \"swish\""},
    {"simple_gla/base", R"({"feature_map": "elu"})", "feature_map is \"elu\", must be null"},
    {"simple_gla/base", R"({"num_kv_heads": 3})", "num_kv_heads is 3, must divide num_heads 4"},
    {"simple_gla/base", R"({"conv_size": 65})", "conv_size is 65"},
    {"simple_gla/base", R"({"conv_bias": 1})", "conv_bias is 1, must be true or false"},
    // hgrn2
    {"hgrn2/base", R"({"expand_ratio": 24})", "expand_ratio is 24, must divide hidden_size 64"},
    {"hgrn2/no_bound_odd", R"({"num_heads": 7})", "num_heads is 7, must divide hidden_size 60"},
    {"hgrn2/conv", R"({"conv_size": 65})", "conv_size is 65"},
    {"hgrn2/base", R"({"use_lower_bound": "yes"})", "use_lower_bound is \"yes\""},
    // linear_attn
    {"linear_attn/elu", R"({"feature_map": "rebased"})",
     "feature_map is \"rebased\", must be \"elementwise_product\", \"hedgehog\""},
    {"linear_attn/elu", R"({"num_kv_heads": 3})", "num_kv_heads is 3, must divide num_heads 4"},
    {"linear_attn/elu", R"({"norm_feature_map": 2})", "norm_feature_map is 2"},
    {"linear_attn/elu", R"({"expand_v": 0})", "expand_v is 0"},
    // lightnet
    {"lightnet/odd", R"({"num_heads": 7})", "num_heads is 7, must divide hidden_size 60"},
    {"lightnet/base", R"({"expand_ratio": 65})",
     "expand_ratio is 65, must leave heads that divide"},
    {"lightnet/base", R"({"gate_low_rank_dim": 0})", "gate_low_rank_dim is 0"},
    // transnormer
    {"transnormer/base", R"({"linear_act_fun": "exp"})",
     "linear_act_fun is \"exp\", must be \"silu\""},
    {"transnormer/base", R"({"decoder_layers": 1, "linear_use_lrpe_list": [1]})",
     "decoder_layers is 1, must be at least 2"},
    {"transnormer/base", R"({"decoder_attention_heads": 3})",
     "decoder_attention_heads is 3, must divide hidden_dim 64"},
    {"transnormer/base", R"({"hidden_dim": 128})",
     "hidden_dim is 128, must be decoder_embed_dim 64 where linear_use_lrpe_list has a layer"},
    {"transnormer/base", R"({"linear_use_lrpe_list": [1]})",
     "linear_use_lrpe_list is a list, must have 0 or 1 for each of the 2 layers"},
    {"transnormer/base", R"({"linear_use_lrpe_list": [1, 2]})", "linear_use_lrpe_list is a list"},
    {"transnormer/base", R"({"norm_type": 5})", "norm_type is 5, must be a word"},
    {"transnormer/base", R"({"glu_dim": 0})", "glu_dim is 0, must be -1 or positive"},
    {"transnormer/base", R"({"quantization_config": {}, "decoder_embed_dim": 0})",
     "decoder_embed_dim is 0"},
    // mamba2
    {"mamba2/base", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\", must be \"silu\""},
    {"mamba2/base", R"({"num_heads": 5})",
     "num_heads is 5, must be expand 1 times hidden_size 64 by"},
    {"mamba2/base", R"({"head_dim": 48})", "expand 1 times hidden_size 64"},
    {"mamba2/base", R"({"n_groups": 3})", "n_groups is 3, must divide the 4 heads"},
    {"mamba2/base", R"({"time_step_limit": [0.5, 0.1]})",
     "time_step_limit is a list, must be [least, most] with 0 <= least <= most"},
    {"mamba2/base", R"({"time_step_limit": 3})", "time_step_limit is 3"},
    {"mamba2/fla", R"({"dt_limit": ["a", 1]})", "dt_limit is "},
    {"mamba2/base", R"({"attn_cfg": {"num_heads": 4}})", "attn_cfg is "},
    {"mamba2/base", R"({"conv_kernel": 0})", "conv_kernel is 0"},
    {"mamba2/state_spaces", R"({"d_intermediate": 64})", "d_intermediate is "},
    {"mamba2/state_spaces", R"({"attn_layer_idx": [1]})",
     "attn_layer_idx is a list, must be null: softmax attention layers"},
    {"mamba2/state_spaces", R"({"rms_norm": false})", "rms_norm is false, must be true"},
    {"mamba2/state_spaces", R"({"ssm_cfg": {"d_ssm": 32}})", "ssm_cfg: d_ssm is 32"},
    {"mamba2/state_spaces", R"({"ssm_cfg": {"layer": "Mamba3"}})",
     "ssm_cfg: layer is \"Mamba3\", must be \"Mamba2\""},
    {"mamba2/state_spaces", R"({"ssm_cfg": {"layer": null}})", "ssm_cfg: layer is missing"},
    {"mamba2/state_spaces", R"({"ssm_cfg": {"ngroups": 3}})", "n_groups is 3, must divide"},
    {"mamba2/state_spaces", R"({"ssm_cfg": {"dt_limit": [1]}})", "ssm_cfg: dt_limit is a list"},
    // delta_net
    {"delta_net/base", R"({"hidden_act": "powlu"})", "hidden_act is \"powlu\", must be \"swish\""},
    {"delta_net/base", R"({"attnres_block_size": 4})", "attnres_block_size is 4, must be null"},
    {"delta_net/base", R"({"attn": {"layers": [0]}})", "attn: num_heads is missing"},
    {"delta_net/base", R"({"num_heads": 3})", "must be a multiple of num_heads 3"},
    {"delta_net/base", R"({"expand_k": 0.3})",
     "hidden_size 64 times expand_k 0.3 is 19.2, must be"},
    {"delta_net/base", R"({"expand_v": 0.7})",
     "hidden_size 64 times expand_v 0.7 is 44.8, must be"},
    {"delta_net/base", R"({"qk_norm": "sum"})",
     "qk_norm is \"sum\", must be \"l2\" where qk_activation is \"silu\" or \"identity\""},
    {"delta_net/no_conv", R"({"qk_norm": "sum"})", "qk_norm is \"sum\", must be \"l2\" where"},
    {"delta_net/base", R"({"qk_norm": "rms"})", "qk_norm is \"rms\", must be \"l2\" or \"sum\""},
    {"delta_net/base", R"({"qk_activation": "tanh"})",
     "qk_activation is \"tanh\", must be \"silu\", \"relu\", \"elu\" or \"identity\""},
    {"delta_net/base", R"({"use_beta": "no"})", "use_beta is \"no\", must be true or false"},
    {"delta_net/base", R"({"use_gate": 1})", "use_gate is 1, must be true or false"},
    {"delta_net/base", R"({"use_short_conv": 0})", "use_short_conv is 0, must be true or false"},
    {"delta_net/base", R"({"conv_size": 65})", "conv_size is 65, must be an integer in [1, 64]"},
    {"delta_net/base", R"({"allow_neg_eigval": 2})", "allow_neg_eigval is 2, must be true or"},
    // gated_deltanet
    {"gated_deltanet/base", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
    {"gated_deltanet/base", R"({"attnres_block_size": 4})", "attnres_block_size is 4"},
    {"gated_deltanet/gva", R"({"num_v_heads": 3})",
     "num_v_heads is 3, must be a multiple of num_heads 2"},
    {"gated_deltanet/gva", R"({"num_v_heads": 1})",
     "num_v_heads is 1, must be a multiple of num_heads 2"},
    {"gated_deltanet/base", R"({"expand_v": 1.3})",
     "head_dim 16 times expand_v 1.3 is 20.8, must be a whole number"},
    {"gated_deltanet/base", R"({"head_dim": 0})", "head_dim is 0, must be an integer in [1, "},
    {"gated_deltanet/base", R"({"use_gate": "yes"})", "use_gate is \"yes\""},
    {"gated_deltanet/sigmoid", R"({"output_gate_activation": "tanh"})",
     "output_gate_activation is \"tanh\", must be \"swish\", \"silu\" or \"sigmoid\""},
    // kda
    {"kda/base", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
    {"kda/base", R"({"attnres_block_size": 4})", "attnres_block_size is 4"},
    {"kda/gva", R"({"num_v_heads": 3})", "num_v_heads is 3, must be a multiple of num_heads 2"},
    {"kda/bounded", R"({"lower_bound": 1.0})",
     "lower_bound is 1.0, must be a number in [-1e+30, 0]"},
    {"kda/bounded", R"({"lower_bound": "low"})", "lower_bound is \"low\""},
    {"kda/base", R"({"expand_v": 0.9})", "head_dim 16 times expand_v 0.9 is 14.4, must be a whole"},
    // Other kinds of models, some of which have layers of these.
    {"gated_deltanet/base", R"({"model_type": "qwen3_next"})",
     "model_type is \"qwen3_next\": layers with experts are not supported, must be one of \"gla\""},
    {"qwen3_5_text/base", R"({"model_type": "qwen3_5_moe"})",
     "model_type is \"qwen3_5_moe\": layers with experts are not supported"},
    {"qwen3_5_text/base", R"({"model_type": "qwen3_5_moe_text"})",
     "model_type is \"qwen3_5_moe_text\": layers with experts are not supported"},
    {"lfm2/base", R"({"model_type": "lfm2_moe"})",
     "model_type is \"lfm2_moe\": layers with experts are not supported"},
    {"kda/base", R"({"model_type": "kimi_linear"})",
     "model_type is \"kimi_linear\": latent attention and layers with experts are not supported"},
    {"qwen3_5_text/base", R"({"model_type": "qwen3_vl"})",
     "model_type is \"qwen3_vl\", must be one of \"gla\""},
    // qwen3_5
    {"qwen3_5_text/base", R"({"attn_output_gate": false})", "attn_output_gate is false, must be"},
    {"qwen3_5_text/base", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
    {"qwen3_5_text/base", R"({"linear_num_value_heads": 3})",
     "linear_num_value_heads is 3, must be a multiple of linear_num_key_heads 2"},
    {"qwen3_5_text/base", R"({"num_experts": 4})", "num_experts is 4, must be null: experts"},
    {"qwen3_5_text/base", R"({"quantization_config": {"quant_method": "fp8"}})",
     "quantization_config is an object, must be null: quantized weights"},
    {"qwen3_5_text/base", R"({"layer_types": ["full_attention"]})",
     "layer_types is a list, must be a list of 4 words"},
    {"qwen3_5_text/base",
     R"({"layer_types": ["full_attention", "linear_attention", "linear_attention", "mamba"]})",
     "layer_types holds \"mamba\", must hold \"linear_attention\" or \"full_attention\""},
    {"qwen3_5_text/base", R"({"rope_parameters": {"rope_type": "dynamic"}})",
     "rope_parameters: rope_type is \"dynamic\""},
    {"qwen3_5_text/base", R"({"rope_parameters": {"partial_rotary_factor": 0.1}})",
     "partial_rotary_factor 0.1 of head_dim 8 is 0 channels, must be even and at least 2"},
    {"qwen3_5/wrapped", R"({"text_config": 3})", "text_config is 3, must be an object"},
    {"qwen3_5/wrapped", R"({"text_config": {"hidden_size": 0}})",
     "config.json: text_config: hidden_size is 0"},
    {"qwen3_5/wrapped", R"({"quantization_config": {"bits": 4}})", "quantization_config is "},
    // granitemoehybrid
    {"granitemoehybrid/dense_h", R"({"num_local_experts": 4})",
     "num_local_experts is not 0: layers with experts are not supported"},
    {"granitemoehybrid/dense_h", R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
    {"granitemoehybrid/dense_h", R"({"layer_types": ["mamba", "mamba", "attention", "conv"]})",
     "layer_types holds \"conv\", must hold \"mamba\""},
    {"granitemoehybrid/dense_h", R"({"mamba_n_heads": 5})",
     "mamba_n_heads 5 times mamba_d_head 16 is 80, must be the inner width 64"},
    {"granitemoehybrid/dense_h", R"({"mamba_n_groups": 3})",
     "mamba_n_groups is 3, must divide mamba_n_heads 4"},
    {"granitemoehybrid/rope_odd", R"({"time_step_limit": [1, 0]})", "time_step_limit is a list"},
    {"granitemoehybrid/rope_odd", R"({"logits_scaling": 0})", "logits_scaling is 0"},
    // lfm2
    {"lfm2/base", R"({"layer_types": ["conv", "conv", "mamba", "conv"]})",
     "layer_types holds \"mamba\", must hold \"conv\" or \"full_attention\""},
    {"lfm2/odd", R"({"full_attn_idxs": [4]})",
     "full_attn_idxs is a list, must be a list of layers in [0, 3]"},
    {"lfm2/base", R"({"conv_L_cache": 65})", "conv_L_cache is 65"},
    {"lfm2/base", R"({"conv_L_cache": 1})", "conv_L_cache is 1, must be an integer in [2, 64]"},
    {"lfm2/odd", R"({"block_ff_dim": 1})", "leaves no MLP"},
    // olmo_hybrid
    {"olmo_hybrid/base", R"({"linear_num_value_heads": 3})",
     "linear_num_value_heads is 3, must be a multiple of linear_num_key_heads 2"},
    {"olmo_hybrid/base", R"({"layer_types": [1, 2, 3, 4]})", "layer_types holds 1, must hold"},
    {"olmo_hybrid/base", R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "longrope"}})",
     "rope_parameters: rope_type is \"longrope\""},
    // nemotron_h
    {"nemotron_h/dense", R"({"hybrid_override_pattern": "M-M*EM"})",
     "hybrid_override_pattern holds \"E\": layers with experts are not supported"},
    {"nemotron_h/dense", R"({"layers_block_type": ["mamba", "moe"]})",
     "layers_block_type holds \"moe\": layers with experts are not supported"},
    {"nemotron_h/dense", R"({"hybrid_override_pattern": "M-M*XM"})",
     "hybrid_override_pattern holds \"X\", must hold \"mamba\" (M)"},
    {"nemotron_h/dense", R"({"hybrid_override_pattern": "M-"})",
     "num_hidden_layers is 6, must be the 2 layers"},
    {"nemotron_h/dense", R"({"hybrid_override_pattern": "------"})", "no layer mixes tokens"},
    {"nemotron_h/dense", R"({"hybrid_override_pattern": ""})", "must name the kinds of 1 to 1024"},
    {"nemotron_h/dense", R"({"sliding_window": 8})", "sliding_window is 8, must be null"},
    {"nemotron_h/dense", R"({"mlp_hidden_act": "silu"})", "mlp_hidden_act is \"silu\""},
    {"nemotron_h/dense", R"({"mamba_hidden_act": "gelu"})", "mamba_hidden_act is \"gelu\""},
    {"nemotron_h/dense", R"({"n_groups": 3})", "n_groups is 3, must divide mamba_num_heads 4"},
    // falcon_h1
    {"falcon_h1/base", R"({"attn_layer_indices": [1]})", "attn_layer_indices is a list, must be"},
    {"falcon_h1/base", R"({"ssm_multipliers": [1, 2]})",
     "ssm_multipliers is a list, must be a list of 5 numbers"},
    {"falcon_h1/base", R"({"mlp_multipliers": [1, 0]})", "mlp_multipliers is a list"},
    {"falcon_h1/base", R"({"key_multiplier": -1})", "key_multiplier is -1"},
    {"falcon_h1/base", R"({"mamba_d_ssm": 48})",
     "mamba_n_heads 4 times mamba_d_head 8 is 32, must be the inner width 48"},
    // bamba
    {"bamba/base", R"({"attn_layer_indices": [7]})",
     "attn_layer_indices is a list, must be a list of layers in [0, 3]"},
    {"bamba/base", R"({"num_attention_heads": 32})", "is 1 channels, must be even and at least 2"},
    {"lightnet/base", R"({"model_type": "minimax"})", "model_type is \"minimax\""},
};

TEST(FamiliesTest, EveryRefusalNamesTheField) {
  for (const Refusal& refusal : kRefusals) {
    SCOPED_TRACE(absl::StrCat(refusal.variant, " ", refusal.changes));
    ASSERT_TRUE(ParseChanged(refusal.variant, Json::object()).ok())
        << ParseChanged(refusal.variant, Json::object()).status();
    const absl::Status status =
        ParseChanged(refusal.variant, Json::parse(refusal.changes)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), StartsWith("config.json: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(refusal.message));
  }
}

// Tensors that a family's class does not read, or that this config does not ask for.
TEST(FamiliesTest, TensorsThatAreNotTheModelsAreRefused) {
  const struct {
    const char* variant;
    const char* tensor;
  } kCases[] = {
      {"retnet/odd", "model.layers.0.attn.q_conv1d.weight"},
      {"hgrn2/base", "model.layers.0.attn.h_conv1d.weight"},
      {"linear_attn/elu", "model.layers.0.attn.g_proj.weight"},
      {"lightnet/base", "model.layers.0.attn.g_proj.0.bias"},
      {"transnormer/layernorm_bias", "model.layers.1.token_mixer.lrpe.theta"},
      {"delta_net/base", "model.layers.0.attn.norm.weight"},
      {"delta_net/sum_elu", "model.layers.0.attn.b_proj.weight"},
      {"delta_net/no_conv", "model.layers.0.attn.q_conv1d.bias"},
      {"gated_deltanet/plain", "model.layers.0.attn.g_proj.weight"},
      {"gated_deltanet/base", "model.layers.0.linear_attn.in_proj_qkvz.weight"},
      {"kda/base", "model.layers.1.attn.D"},
      {"mamba2/base", "backbone.layers.0.mlp.fc1.weight"},
      {"mamba2/state_spaces", "backbone.layers.1.mixer.Wqkv.weight"},
      {"qwen3_5/wrapped", "model.language_model.layers.0.linear_attn.in_proj_qkvz.weight"},
      {"qwen3_5_text/base", "model.layers.0.mlp.up_proj.weight_scale_inv"},
      {"granitemoehybrid/dense_h", "model.layers.0.block_sparse_moe.input_linear.weight"},
      {"nemotron_h/dense", "backbone.layers.1.mixer.gate.weight"},
      {"falcon_h1/base", "model.layers.0.mamba.norm.weight"},
      {"lfm2/base", "model.layers.0.conv.conv.bias"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.variant);
    TempDir dir;
    dir.Write("config.json", ReadFile(Golden(c.variant) + "/config.json"));
    const std::string stored = ReadFile(Golden(c.variant) + "/model.safetensors");
    dir.Write("model-1.safetensors", stored);
    TestTensors extra;
    extra[c.tensor] = CountingTensor("BF16", {4, 4});
    dir.Write("model-2.safetensors", SafetensorsBytes(extra));
    Json map;
    uint64_t length = 0;
    std::memcpy(&length, stored.data(), sizeof(length));
    const Json header = Json::parse(stored.substr(8, length));
    for (const auto& [name, value] : header.items()) {
      if (name != "__metadata__") map[name] = "model-1.safetensors";
    }
    dir.Write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    ASSERT_TRUE(Checkpoint::Open(dir.path()).ok()) << Checkpoint::Open(dir.path()).status();
    map[c.tensor] = "model-2.safetensors";
    dir.Write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    const absl::Status status = Checkpoint::Open(dir.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.tensor));
    EXPECT_THAT(std::string(status.message()), HasSubstr("not part of the model"));
  }
}

const MixerSpec& FirstMixer(const ModelConfig& config, int64_t layer = 0) {
  return std::get<MixerSpec>(config.spec.layers[layer].branches[0].units[0]);
}

TEST(FamiliesTest, RetNetIgnoresShortConvAndHasAStateForEachQueryHead) {
  const auto config = ParseChanged("retnet/gqa_relu", {{"use_short_conv", true}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(FirstMixer(*config).conv.taps, 0);
  EXPECT_THAT(config->notes,
              testing::ElementsAre(StartsWith("use_short_conv is true and changes")));
  EXPECT_THAT(ParseChanged("retnet/gqa_relu", Json::object())->notes, testing::IsEmpty());
  EXPECT_EQ(FirstMixer(*config).k_heads, 2);
  EXPECT_EQ(FirstMixer(*config).state_heads, 4);
  EXPECT_EQ(MakeStateTable(config->spec).Find(0, StatePartKind::kMatrix)->shape,
            (std::vector<int64_t>{4, 16, 16}));
}

TEST(FamiliesTest, OldNamesOfFields) {
  const auto now = ParseChanged("retnet/gqa_relu", Json::object());
  const auto then =
      ParseChanged("retnet/gqa_relu",
                   {{"rms_norm_eps", 1e-5}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}},
                   {"norm_eps", "num_heads", "num_kv_heads"});
  ASSERT_TRUE(now.ok() && then.ok()) << then.status();
  EXPECT_EQ(now->identity, then->identity);
}

TEST(FamiliesTest, Hgrn2TakesHeadsFromTheRatioAlone) {
  const auto config = ParseChanged("hgrn2/base", {{"num_heads", 2}, {"expand_ratio", 32}});
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(FirstMixer(*config).state_heads, 2);
  EXPECT_EQ(FirstMixer(*config).out_norm.eps, 1e-5f) << "whatever norm_eps says";
}

TEST(FamiliesTest, Mamba2ReadsInfinityInEverySpelling) {
  for (const char* limit :
       {"[0.0, Infinity]", R"([0.0, {"__float__": "Infinity"}])", "null", "[0, 1e300]"}) {
    const auto config = ParseConfig(
        absl::StrCat(R"({"model_type": "mamba2", "hidden_size": 64, "expand": 1, "head_dim": 16,
                         "num_heads": 4, "n_groups": 1, "time_step_limit": )",
                     limit, "}"),
        "config.json");
    ASSERT_TRUE(config.ok()) << limit << " " << config.status();
    EXPECT_EQ(FirstMixer(*config).dt_min, 0);
    EXPECT_TRUE(std::isinf(FirstMixer(*config).dt_max)) << limit;
  }
}

// norm_before_gate counts where its writer meant it.
TEST(FamiliesTest, Mamba2NormBeforeGate) {
  EXPECT_FALSE(FirstMixer(*ParseChanged("mamba2/fla", Json::object())).gate_before_norm);
  EXPECT_TRUE(
      FirstMixer(*ParseChanged("mamba2/base", {{"norm_before_gate", true}})).gate_before_norm);
  EXPECT_FALSE(
      FirstMixer(*ParseChanged("mamba2/state_spaces", {{"ssm_cfg", {{"norm_before_gate", true}}}}))
          .gate_before_norm);
}

TEST(FamiliesTest, StateSpacesConfigNeedsNoModelType) {
  const auto config = ParseChanged("mamba2/state_spaces", Json::object());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_STREQ(config->model_type(), "mamba2");
  EXPECT_EQ(config->spec.vocab, 48) << "43, padded to a multiple of 8";
  EXPECT_EQ(SampledTokens(config->spec), 43) << "what pads is never sampled";
  EXPECT_TRUE(config->tied);
  // GPT-NeoX's <|endoftext|>, since the file has none.
  EXPECT_THAT(config->eos_token_ids, testing::ElementsAre(0));
}

// Before a field existed, and with null, value heads are as many as the others.
TEST(FamiliesTest, DeltaHeads) {
  const auto gva = ParseChanged("gated_deltanet/gva", Json::object());
  ASSERT_TRUE(gva.ok()) << gva.status();
  EXPECT_EQ(FirstMixer(*gva).k_heads, 2);
  EXPECT_EQ(FirstMixer(*gva).state_heads, 4);
  EXPECT_EQ(FirstMixer(*gva).beta_max, 2.0f);
  EXPECT_EQ(MakeStateTable(gva->spec).Find(0, StatePartKind::kMatrix)->shape,
            (std::vector<int64_t>{4, 16, 16}));
  const auto without = ParseChanged("gated_deltanet/gva", Json::object(), {"num_v_heads"});
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(FirstMixer(*without).state_heads, 2);
}

// use_output_norm was read by no release, and safe_gate picks a kernel.
TEST(FamiliesTest, FieldsThatMeanNothing) {
  const auto base = ParseChanged("delta_net/base", Json::object());
  const auto unnormed = ParseChanged("delta_net/base", {{"use_output_norm", false}});
  ASSERT_TRUE(base.ok() && unnormed.ok());
  EXPECT_EQ(base->identity, unnormed->identity);
  const auto safe = ParseChanged("kda/bounded", {{"safe_gate", false}});
  const auto bounded = ParseChanged("kda/bounded", Json::object());
  ASSERT_TRUE(safe.ok() && bounded.ok());
  EXPECT_EQ(safe->identity, bounded->identity);
}

// The weights compute another model with it.
TEST(FamiliesTest, EveryDeltaFieldIsInTheIdentity) {
  const struct {
    const char* variant;
    const char* changes;
  } kCases[] = {
      {"delta_net/gate_negative", R"({"allow_neg_eigval": false})"},
      {"delta_net/gate_negative", R"({"qk_activation": "elu"})"},
      {"delta_net/gate_negative", R"({"qk_norm": "sum"})"},
      {"delta_net/gate_negative", R"({"use_beta": false})"},
      {"delta_net/gate_negative", R"({"use_gate": false})"},
      {"delta_net/gate_negative", R"({"use_short_conv": false})"},
      {"delta_net/gate_negative", R"({"norm_eps": 0.001})"},
      {"gated_deltanet/gva", R"({"num_v_heads": 2})"},
      {"gated_deltanet/gva", R"({"output_gate_activation": "sigmoid"})"},
      {"kda/bounded", R"({"lower_bound": null})"},
      {"kda/bounded", R"({"lower_bound": -4})"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(absl::StrCat(c.variant, " ", c.changes));
    const auto base = ParseChanged(c.variant, Json::object());
    const auto changed = ParseChanged(c.variant, Json::parse(c.changes));
    ASSERT_TRUE(base.ok());
    // merge_patch takes a null for "without", which means the same here.
    ASSERT_TRUE(changed.ok()) << changed.status();
    EXPECT_NE(base->identity, changed->identity);
  }
}

// The wrapper's text part is served; what is left out is counted.
TEST(FamiliesTest, VisionAndTokenPredictionAreSkippedAndSaid) {
  const auto checkpoint = Checkpoint::Open(Golden("qwen3_5/wrapped"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_THAT(config.notes,
              testing::ElementsAre(
                  StartsWith("the vision tower is not served: 21 tensors under model.visual. ("),
                  StartsWith("multi-token prediction is not served: 5 tensors under mtp. (")));
  EXPECT_EQ(config.bos_token_id, 1) << "text_config's";
  EXPECT_THAT(config.eos_token_ids, testing::ElementsAre(2));
  const auto outside = ParseChanged("qwen3_5/wrapped", {{"eos_token_id", {3, 4}}});
  ASSERT_TRUE(outside.ok()) << outside.status();
  EXPECT_THAT(outside->eos_token_ids, testing::ElementsAre(3, 4));
  EXPECT_THAT((*Checkpoint::Open(Golden("qwen3_5_text/base")))->config().notes, testing::IsEmpty());
}

// transformers' save_pretrained cuts Olmo's convolutions, one behind the other, into equal parts:
// the model is the same.
TEST(FamiliesTest, OlmosConvolutionsInEqualParts) {
  constexpr int64_t kTaps = 4;
  const std::string all = CountingTensor("F32", {24, 1, kTaps}).data;
  TestTensors tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors[name] = CountingTensor("F32", std::move(shape));
  };
  const std::string layer = "model.layers.0.", linear = layer + "linear_attn.";
  for (const char* norm : {"attention_layer_norm", "feedforward_layer_norm"}) {
    add(layer + norm + ".weight", {8});
  }
  for (const auto& [name, rows] : std::map<std::string, int64_t>{
           {"q", 6}, {"k", 6}, {"v", 12}, {"g", 12}, {"a", 3}, {"b", 3}}) {
    add(linear + name + "_proj.weight", {rows, 8});
  }
  add(linear + "A_log", {3});
  add(linear + "dt_bias", {3});
  add(linear + "o_norm.weight", {4});
  add(linear + "o_proj.weight", {8, 12});
  for (const char* name : {"gate_proj", "up_proj"}) add(layer + "mlp." + name + ".weight", {4, 8});
  add(layer + "mlp.down_proj.weight", {8, 4});
  for (const char* name : {"model.embed_tokens", "lm_head"}) {
    add(std::string(name) + ".weight", {5, 8});
  }
  add("model.norm.weight", {8});
  const auto load = [&](const std::vector<int64_t>& parts, RecordingBackend* backend) {
    int64_t begin = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      TestTensor& part = tensors[linear + "qkv"[i] + "_conv1d.weight"];
      constexpr int64_t kRowBytes = kTaps * 4;
      part = {"F32", {parts[i], 1, kTaps}, all.substr(begin * kRowBytes, parts[i] * kRowBytes)};
      begin += parts[i];
    }
    TempDir dir;
    dir.Write("config.json", R"({"model_type": "olmo_hybrid", "hidden_size": 8, "vocab_size": 5,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4,
        "layer_types": ["linear_attention"], "linear_num_key_heads": 3,
        "linear_num_value_heads": 3, "linear_key_head_dim": 2, "linear_value_head_dim": 4})");
    dir.Write("model.safetensors", SafetensorsBytes(tensors));
    const auto checkpoint = Checkpoint::Open(dir.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (!checkpoint.ok()) return std::string();
    std::string fingerprint;
    const auto weights = (*checkpoint)->Load(backend, {}, &fingerprint);
    EXPECT_TRUE(weights.ok()) << weights.status();
    const auto& w = std::get<MixerWeights>(weights->layers[0].branches[0].units[0]);
    std::string loaded;
    for (const Vector& conv : {w.conv_q, w.conv_k, w.conv_v}) {
      loaded += backend->at(conv).blocks[0].bytes;
    }
    EXPECT_EQ(w.conv_q.size, 6 * kTaps);
    EXPECT_EQ(w.conv_v.size, 12 * kTaps);
    return loaded;
  };
  RecordingBackend makers, equal;
  EXPECT_EQ(load({6, 6, 12}, &makers), all);
  EXPECT_EQ(load({8, 8, 8}, &equal), all);
}

// Values that follow from an absent layer_types and from other spellings.
TEST(FamiliesTest, HybridsFindTheirLayers) {
  const auto is_softmax = [](const ModelConfig& config, int64_t layer) {
    return FirstMixer(config, layer).core == Core::kSoftmax;
  };
  const auto every_second =
      ParseChanged("qwen3_5_text/base", {{"full_attention_interval", 2}}, {"layer_types"});
  ASSERT_TRUE(every_second.ok()) << every_second.status();
  const auto every_fourth = ParseChanged("qwen3_5_text/base", Json::object(), {"layer_types"});
  const auto olmo = ParseChanged("olmo_hybrid/base", Json::object(), {"layer_types"});
  const auto all = ParseChanged("lfm2/odd", Json::object(), {"full_attn_idxs"});
  const auto none = ParseChanged("granitemoehybrid/dense_h", Json::object(), {"layer_types"});
  ASSERT_TRUE(every_fourth.ok() && olmo.ok() && all.ok() && none.ok());
  for (int64_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(is_softmax(*every_second, layer), layer % 2 == 1);
    EXPECT_EQ(is_softmax(*every_fourth, layer), layer == 3);
    EXPECT_EQ(is_softmax(*olmo, layer), layer == 3);
    EXPECT_TRUE(is_softmax(*all, layer));
    EXPECT_FALSE(is_softmax(*none, layer));
  }
}

TEST(FamiliesTest, DefaultsOfTheClasses) {
  const auto parse = [](const std::string& text) { return ParseConfig(text, "config.json"); };
  const auto retnet = parse(R"({"model_type": "retnet"})");
  ASSERT_TRUE(retnet.ok()) << retnet.status();
  EXPECT_EQ(FirstMixer(*retnet).q_heads, 8);
  EXPECT_EQ(FirstMixer(*retnet).dk, 256);
  EXPECT_EQ(FirstMixer(*retnet).dv, 512);
  EXPECT_EQ(MakeStateTable(retnet->spec).bytes(), 96 << 20);
  const auto hgrn2 = parse(R"({"model_type": "hgrn2"})");
  ASSERT_TRUE(hgrn2.ok()) << hgrn2.status();
  EXPECT_EQ(FirstMixer(*hgrn2).dk, 128);
  EXPECT_EQ(MakeStateTable(hgrn2->spec).bytes(), 24 << 20);
  const auto mamba2 = parse(R"({"model_type": "mamba2"})");
  ASSERT_TRUE(mamba2.ok()) << mamba2.status();
  EXPECT_EQ(FirstMixer(*mamba2).k_heads, 8);
  EXPECT_EQ(FirstMixer(*mamba2).state_heads, 128);
  const auto fla_mamba2 = parse(R"({"model_type": "mamba2", "norm_eps": 1e-5})");
  ASSERT_TRUE(fla_mamba2.ok()) << fla_mamba2.status();
  EXPECT_EQ(FirstMixer(*fla_mamba2).k_heads, 1);
  EXPECT_EQ(FirstMixer(*fla_mamba2).state_heads, 64);
  const auto delta_net = parse(R"({"model_type": "delta_net"})");
  ASSERT_TRUE(delta_net.ok()) << delta_net.status();
  // 24 layers of 16 heads of 128 x 128, and three convolutions' last three inputs.
  EXPECT_EQ(MakeStateTable(delta_net->spec).bytes(), 24 * 4 * (16 * 128 * 128 + 3 * 3 * 2048));
  const auto gated = parse(R"({"model_type": "gated_deltanet"})");
  ASSERT_TRUE(gated.ok()) << gated.status();
  EXPECT_EQ(MakeStateTable(gated->spec).bytes(), 21 * 4 * (6 * 256 * 512 + 3 * (2 * 1536 + 3072)));
  const auto kda = parse(R"({"model_type": "kda"})");
  ASSERT_TRUE(kda.ok()) << kda.status();
  EXPECT_EQ(MakeStateTable(kda->spec).bytes(), MakeStateTable(delta_net->spec).bytes());
  const auto transnormer = parse(R"({"model_type": "transnormer"})");
  ASSERT_TRUE(transnormer.ok()) << transnormer.status();
  EXPECT_TRUE(transnormer->tied);
  EXPECT_EQ(transnormer->spec.embedding_scale, 32.0f);
}

// The sizes in deploy/CHECKPOINTS.md, from the shapes of published checkpoints.
TEST(FamiliesTest, StatesOfPublishedShapes) {
  const struct {
    const char* config;
    int64_t bytes;        // at any length
    int64_t token_bytes;  // with each token
  } kCases[] = {
      // 18 layers of 16 heads of 128 x 128 and three inputs of 3 x 2048 columns; 6 of 2 kv heads.
      {R"({"model_type": "qwen3_5", "text_config": {"hidden_size": 1024, "num_hidden_layers": 24,
           "num_attention_heads": 8, "num_key_value_heads": 2, "linear_num_value_heads": 16,
           "intermediate_size": 3584}})",
       18 * 4 * (16 * 128 * 128 + 3 * 3 * 2048), 6 * 4 * 2 * 2 * 256},
      {R"({"model_type": "lfm2", "hidden_size": 1024, "num_hidden_layers": 16,
           "num_attention_heads": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14]})",
       10 * 4 * 2 * 1024, 6 * 4 * 2 * 8 * 64},
      {R"({"model_type": "falcon_h1", "hidden_size": 512, "num_hidden_layers": 24,
           "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
           "mamba_d_ssm": 768, "mamba_n_heads": 24, "mamba_d_head": 32, "mamba_d_state": 64})",
       24 * 4 * (24 * 32 * 64 + 3 * (768 + 2 * 64)), 24 * 4 * 2 * 2 * 64},
      {R"({"model_type": "olmo_hybrid"})", 24 * 4 * (30 * 96 * 192 + 3 * 30 * (2 * 96 + 192)),
       8 * 4 * 2 * 3840},
  };
  for (const auto& c : kCases) {
    const auto config = ParseConfig(c.config, "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(MakeStateTable(config->spec).bytes(), c.bytes) << c.config;
    EXPECT_EQ(MakeStateTable(config->spec).token_bytes(), c.token_bytes) << c.config;
  }
}

// Every golden opens, has the numbers of parameters of its files, and can run on the CPU.
TEST(FamiliesTest, EveryGoldenOpens) {
  int64_t models = 0;
  for (const Family* family : Families()) {
    const std::string dir = Golden(family->model_type);
    if (!std::filesystem::is_directory(dir)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      SCOPED_TRACE(entry.path().string());
      const auto checkpoint = Checkpoint::Open(entry.path().string());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      EXPECT_EQ(CheckSpec(DeviceKind::kCpu, (*checkpoint)->config().spec), absl::OkStatus());
      EXPECT_GT((*checkpoint)->parameters(), 0);
      ++models;
    }
  }
  EXPECT_GE(models, 86);
}

}  // namespace
}  // namespace sluice
