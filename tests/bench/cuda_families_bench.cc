#include "tests/bench/cuda_families_bench.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/state_table.h"
#include "tests/bench/cuda_step_timing.h"
#include "tests/bench/random_checkpoint.h"

namespace sluice {
namespace {

struct FamilyConfig {
  const char* name;
  const char* config;  // what differs from the defaults of the makers' class
};
constexpr FamilyConfig kFamilies[] = {
    {"gla", R"({"model_type": "gla", "hidden_size": 2048, "num_hidden_layers": 24, "num_heads": 4,
                "intermediate_size": 5632, "vocab_size": 32000})"},
    {"retnet", R"({"model_type": "retnet", "hidden_size": 2048, "num_hidden_layers": 24,
                   "num_heads": 8, "vocab_size": 32000})"},
    {"mamba2", R"({"model_type": "mamba2", "hidden_size": 2048, "num_hidden_layers": 48,
                   "num_heads": 64, "head_dim": 64, "state_size": 128, "n_groups": 1, "expand": 2,
                   "conv_kernel": 4, "vocab_size": 50288, "tie_word_embeddings": true})"},
    {"hgrn2", R"({"model_type": "hgrn2", "hidden_size": 2048, "num_hidden_layers": 24,
                  "expand_ratio": 128, "vocab_size": 32000})"},
    {"lightnet", R"({"model_type": "lightnet", "hidden_size": 2048, "num_hidden_layers": 24,
                     "expand_ratio": 128, "vocab_size": 32000})"},
    {"transnormer", R"({"model_type": "transnormer", "decoder_embed_dim": 2048,
                        "decoder_layers": 16, "decoder_attention_heads": 16, "hidden_dim": 2048,
                        "norm_type": "simplermsnorm", "linear_act_fun": "silu",
                        "linear_use_lrpe_list": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                        "glu_dim": 5632, "bias": false, "vocab_size": 64000})"},
    {"linear_attn", R"({"model_type": "linear_attn", "hidden_size": 2048, "num_hidden_layers": 24,
                        "num_heads": 4, "vocab_size": 32000})"},
    {"delta_net", R"({"model_type": "delta_net", "hidden_size": 2048, "num_hidden_layers": 24,
                      "num_heads": 16, "vocab_size": 32000})"},
    {"gated_delta", R"({"model_type": "gated_deltanet", "hidden_size": 2048,
                        "num_hidden_layers": 24, "num_heads": 8, "head_dim": 256, "expand_v": 1,
                        "vocab_size": 32000})"},
    {"kda", R"({"model_type": "kda", "hidden_size": 2048, "num_hidden_layers": 24, "num_heads": 16,
                "vocab_size": 32000})"},
    {"hybrid", R"({"model_type": "gated_deltanet", "hidden_size": 2048, "num_hidden_layers": 24,
                   "num_heads": 8, "head_dim": 256, "expand_v": 1, "vocab_size": 32000,
                   "attn": {"layers": [3, 7, 11, 15, 19, 23], "num_heads": 16}})"},
    {"transformer", R"({"model_type": "transformer", "hidden_size": 2048, "num_hidden_layers": 24,
                        "num_heads": 16, "vocab_size": 32000})"},
};

// Tokens before those that decode, where states grow with them.
constexpr int kContext = 1024;

// Numbers that a row passes through: without the embedding, and the lm head's alone. What a decode
// row's attention reads: keys and values are bf16.
struct Size {
  double layers, head, state_bytes, attention_bytes;
};
Size SizeOf(const ModelConfig& config, int64_t parameters) {
  const double head = static_cast<double>(config.spec.vocab * config.spec.hidden);
  const double embeddings = config.tied ? head : 2 * head;
  return {static_cast<double>(parameters) - embeddings, head,
          static_cast<double>(MakeStateTable(config.spec).bytes()),
          static_cast<double>(MakeStateTable(config.spec).token_bytes()) / 2 * kContext};
}

double DecodeFloor(const GpuLimits& limits, const Size& size, int batch) {
  const double weights = size.layers + size.head, flop = 2 * weights * batch;
  return batch * (2 * size.state_bytes + size.attention_bytes) / limits.copy_rate +
         std::max(weights * 2 / limits.copy_rate, flop / limits.gemm_rate);
}

void Measure(int device, const GpuLimits& limits, const FamilyConfig& family) {
  constexpr int kMaxRows = 16384, kSlots = 256;
  CudaOptions options;
  options.device = device;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(options);
  Ok(backend.status());
  absl::StatusOr<RandomCheckpoint> random = RandomCheckpoint::Write(family.config);
  Ok(random.status());
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(random->dir());
  Ok(checkpoint.status());
  const ModelConfig& config = (*checkpoint)->config();
  std::string fingerprint;
  absl::StatusOr<Weights> weights = (*checkpoint)->Load(backend->get(), {}, &fingerprint);
  Ok(weights.status());
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Create(backend->get(), config.spec, *std::move(weights), kMaxRows);
  Ok(model.status());
  // Each slot decodes behind kContext tokens, or takes a share of a step's prompts.
  (*backend)->SetAttentionRoom(
      {kMaxRows + 1, kSlots * PagesFor(kContext + 1) + 2 * PagesFor(kMaxRows + 1)});
  Ok((*backend)->AllocateStates(config.spec, kSlots, 1, kMaxRows));
  Ok((*model)->Prepare());
  const Size size = SizeOf(config, (*checkpoint)->parameters());
  std::printf("%-12s %6.0f", family.name, static_cast<double>((*checkpoint)->parameters()) / 1e6);
  for (const int batch : {1, 32, 256}) {
    BenchRows rows(batch, 0, 0);
    if (size.attention_bytes > 0) {
      for (DecodeRow& row : rows.decode) row.position = kContext;
    }
    const double seconds =
        SecondsOfStep(backend->get(), model->get(), rows.step, batch <= 64 ? 30 : 12);
    std::printf(" %8.2f %3.0f%%", seconds * 1e3, 100 * DecodeFloor(limits, size, batch) / seconds);
  }
  for (const int length : {1024, kMaxRows}) {
    const double seconds =
        SecondsOfPrompts(backend->get(), model->get(), kMaxRows / length, length);
    const double floor = kMaxRows * 2 * size.layers / limits.gemm_rate;
    std::printf(" %9.0f %3.0f%%", kMaxRows / seconds, 100 * floor / seconds);
  }
  std::printf("\n");
}

}  // namespace

void CudaFamiliesBench(int device, const GpuLimits& limits, const std::vector<std::string>& names) {
  const auto named = [&](const FamilyConfig& family) {
    return std::find(names.begin(), names.end(), family.name) != names.end();
  };
  const bool all = std::none_of(std::begin(kFamilies), std::end(kFamilies), named);
  std::printf(
      "\nwhole models, random weights: ms of a decode step (of the floor of weights, fp32 states, "
      "and keys and values of %d tokens), and prompt tokens a second, 16384 tokens a step (of the "
      "products alone)\n"
      "%-12s %6s %13s %13s %13s %14s %14s\n",
      kContext, "", "M", "B = 1", "32", "256", "L = 1024", "16384");
  for (const FamilyConfig& family : kFamilies) {
    if (all || named(family)) Measure(device, limits, family);
  }
}

}  // namespace sluice
