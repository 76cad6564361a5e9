#include "tests/bench/random_model.h"

#include <cstring>
#include <random>
#include <utility>
#include <vector>

namespace sluice {

GlaShape Shape13B() {
  GlaShape s;
  s.vocab = 32000;
  s.layers = 24;
  s.hidden = 2048;
  s.heads = s.kv_heads = 4;
  s.dk = 256;
  s.dv = 512;
  s.intermediate = 5632;
  return s;
}

absl::StatusOr<std::unique_ptr<Model>> RandomModel(Backend* backend, const GlaShape& s,
                                                   int32_t slots, int32_t max_rows) {
  absl::Status status;
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> host(s.vocab * s.hidden);
  for (size_t i = 0; i < host.size(); ++i) {
    const float x = 0.02f * (i < (1 << 22) ? normal(random) : 0.0f);
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    host[i] = i < (1 << 22) ? static_cast<uint16_t>(bits >> 16) : host[i - (1 << 22)];
  }
  const std::vector<float> ones(s.hidden, 1.0f), bias(s.k_dim(), 4.0f);
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return MatrixView{host.data(), DType::kBF16, rows, cols};
  };
  const auto linear = [&](int64_t rows, int64_t cols) {
    const MatrixView view = matrix(rows, cols);
    absl::StatusOr<Linear> loaded = backend->LoadLinear({&view, 1});
    status.Update(loaded.status());
    return loaded.value_or(Linear());
  };
  const auto vector = [&](const std::vector<float>& values, int64_t size) {
    absl::StatusOr<Vector> loaded = backend->LoadVector({values.data(), DType::kF32, 1, size});
    status.Update(loaded.status());
    return loaded.value_or(Vector());
  };
  const ModelSpec spec = s.Spec();
  Weights w = EmptyWeights(spec);
  w.embeddings = linear(s.vocab, s.hidden);
  for (int64_t i = 0; i < s.layers; ++i) {
    std::vector<BranchWeights>& branches = w.layers[i].branches;
    branches[0].norm = branches[1].norm = vector(ones, s.hidden);
    auto& mixer = std::get<MixerWeights>(branches[0].units[0]);
    mixer.in = linear(s.mixer_in_dim(), s.hidden);
    mixer.gate = linear(s.k_dim(), s.gate_rank);
    mixer.gate_bias = vector(bias, s.k_dim());
    mixer.out_norm = vector(ones, s.dv);
    mixer.out = linear(s.hidden, s.out_dim());
    auto& mlp = std::get<MlpWeights>(branches[1].units[0]);
    absl::StatusOr<Linear> gate_up =
        backend->LoadGateUp(matrix(s.intermediate, s.hidden), matrix(s.intermediate, s.hidden));
    status.Update(gate_up.status());
    mlp.gate_up = gate_up.value_or(Linear());
    mlp.down = linear(s.hidden, s.intermediate);
  }
  w.norm = vector(ones, s.hidden);
  w.lm_head = linear(s.vocab, s.hidden);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Create(backend, spec, std::move(w), max_rows);
  if (!model.ok()) return model;
  status = backend->AllocateStates(spec, slots, 1, max_rows);
  if (status.ok()) status = (*model)->Prepare();
  if (!status.ok()) return status;
  return model;
}

}  // namespace sluice
