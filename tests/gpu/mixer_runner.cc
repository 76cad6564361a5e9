#include "tests/gpu/mixer_runner.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/row_order.h"
#include "kernels/state_table.h"

namespace sluice {
namespace {

uint16_t ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float FromBf16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace

float RoundToBf16(float x) { return FromBf16(ToBf16(x)); }

std::vector<float> RandomInputs(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * cols);
  for (float& v : values) v = RoundToBf16(normal(random));
  return values;
}

MixerValues RandomMixerValues(const MixerSpec& s, double gate_bias, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  const auto values = [&](int64_t count, double scale, double mean = 0.0) {
    std::vector<float> v(count);
    for (float& x : v) x = RoundToBf16(static_cast<float>(mean + scale * normal(random)));
    return v;
  };
  MixerValues w;
  if (s.conv.taps > 0) {
    w.conv_q = values(s.q.width * s.conv.taps, 0.5);
    w.conv_k = values(s.k.width * s.conv.taps, 0.5);
    w.conv_v = values(s.v.width * s.conv.taps, 0.5);
  }
  if (s.conv.bias) {
    w.conv_q_bias = values(s.q.width, 0.5);
    w.conv_k_bias = values(s.k.width, 0.5);
    w.conv_v_bias = values(s.v.width, 0.5);
  }
  const int64_t keys = s.state_heads * s.dk;
  const bool kda = s.gate == GateMap::kKda || s.gate == GateMap::kKdaBounded;
  if (kda || (s.gate == GateMap::kGla && s.decay == Decay::kKey)) {
    w.gate = values(keys * s.gate_in.width, 0.5);
    w.gate_bias = values(keys, 1.0, gate_bias);
  } else if (s.decay == Decay::kHead) {
    w.gate_bias = values(s.state_heads, 1.0, gate_bias);
  }
  if (kda || s.gate == GateMap::kGatedDelta || s.gate == GateMap::kMamba2)
    w.a_log = values(s.state_heads, 1.0);
  if (s.gate == GateMap::kHgrn2) {
    w.lower_bound = values(keys, 1.0);
    for (float& bound : w.lower_bound) bound = RoundToBf16(1 / (1 + std::exp(-bound)));
  }
  if (s.decay == Decay::kConst) {
    for (int64_t h = 0; h < s.state_heads; ++h)
      w.log_decay.push_back(-std::exp2(-static_cast<float>(h) - 2.0f));
  }
  const auto map = [&](FeatureMap kind, std::vector<float>* matrix, std::vector<float>* bias,
                       std::vector<float>* matrix2, std::vector<float>* bias2) {
    if (kind != FeatureMap::kT2r && kind != FeatureMap::kHedgehog && kind != FeatureMap::kProduct)
      return;
    const double scale = 1 / std::sqrt(static_cast<double>(s.key_width));
    *matrix = values(s.key_width * s.key_width, scale);
    if (kind != FeatureMap::kT2r) *bias = values(s.key_width, 0.2);
    if (kind != FeatureMap::kProduct) return;
    *matrix2 = values(s.key_width * s.key_width, scale);
    *bias2 = values(s.key_width, 0.2);
  };
  map(s.q_map, &w.q_map, &w.q_map_bias, &w.q_map2, &w.q_map2_bias);
  map(s.k_map, &w.k_map, &w.k_map_bias, &w.k_map2, &w.k_map2_bias);
  if (s.rope == Rope::kLrpe) w.theta = values(s.q_heads * s.key_width, 1.0);
  if (s.rope == Rope::kTable) {
    for (int64_t i = 0; i < s.rope_dims / 2; ++i)
      w.theta.push_back(std::pow(1e4f, -2.0f * static_cast<float>(i) / s.rope_dims));
  }
  if (s.q_norm == QkNorm::kRms) w.q_norm = values(s.dk, 0.2, 1.0);
  if (s.k_norm == QkNorm::kRms) w.k_norm = values(s.dk, 0.2, 1.0);
  if (s.skip != Skip::kNone)
    w.skip = values(s.skip == Skip::kHead ? s.state_heads : s.out_dim(), 1.0);
  const int64_t norm_width = s.norm_span == NormSpan::kHead ? s.dv : s.out_dim();
  if (s.out_norm.kind != NormKind::kNone && s.out_norm.affine) {
    w.out_norm = values(norm_width, 0.2, 1.0);
    if (s.out_norm.kind == NormKind::kLayer) w.out_norm_bias = values(norm_width, 0.2);
  }
  if (s.low_rank_gate) w.out_gate = values(s.out_dim() * s.out_gate.width, 0.3);
  if (s.low_rank_gate && kda) w.out_gate_bias = values(s.out_dim(), 0.5);
  return w;
}

ModelSpec MixerModel(const MixerSpec& spec, int64_t layers) {
  ModelSpec model;
  model.vocab = 64;
  model.hidden = 64;
  model.layers.resize(layers);
  for (LayerSpec& layer : model.layers) {
    layer.branches.resize(1);
    layer.branches[0].units.emplace_back(spec);
  }
  return model;
}

MixerRunner::MixerRunner(std::unique_ptr<Backend> backend, bool cuda, const ModelSpec& model,
                         const MixerValues& values, int32_t slots, int32_t max_rows)
    : backend_(std::move(backend)), cuda_(cuda), model_(model) {
  args_.spec = &std::get<MixerSpec>(model_.layers[0].branches[0].units[0]);
  args_.weights = &weights_;
  Load(values);
  constexpr int64_t kMostTokens = 2048;
  backend_->SetAttentionRoom({kMostTokens, (slots + 1) * PagesFor(kMostTokens)});
  const absl::Status status = backend_->AllocateStates(model_, slots, 1, max_rows);
  EXPECT_TRUE(status.ok()) << status;
  args_.in = backend_->AllocateActivation(max_rows, spec().in_dim).value();
  args_.out = backend_->AllocateActivation(max_rows, spec().out_dim()).value();
}

void MixerRunner::Load(const MixerValues& v) {
  const auto vector = [&](const std::vector<float>& values, Vector* to) {
    if (values.empty()) return;
    const auto count = static_cast<int64_t>(values.size());
    *to = backend_->LoadVector({values.data(), DType::kF32, 1, count}).value();
  };
  const auto matrix = [&](const std::vector<float>& values, int64_t cols, Linear* to) {
    if (values.empty()) return;
    std::vector<uint16_t> bits(values.size());
    std::transform(values.begin(), values.end(), bits.begin(), ToBf16);
    const MatrixView view = {bits.data(), DType::kBF16, static_cast<int64_t>(values.size()) / cols,
                             cols};
    *to = backend_->LoadLinear({&view, 1}).value();
  };
  MixerWeights& w = weights_;
  vector(v.conv_q, &w.conv_q);
  vector(v.conv_k, &w.conv_k);
  vector(v.conv_v, &w.conv_v);
  vector(v.conv_q_bias, &w.conv_q_bias);
  vector(v.conv_k_bias, &w.conv_k_bias);
  vector(v.conv_v_bias, &w.conv_v_bias);
  matrix(v.gate, spec().gate_in.width, &w.gate);
  vector(v.gate_bias, &w.gate_bias);
  vector(v.log_decay, &w.log_decay);
  vector(v.lower_bound, &w.lower_bound);
  vector(v.a_log, &w.a_log);
  matrix(v.q_map, spec().key_width, &w.q_map);
  matrix(v.k_map, spec().key_width, &w.k_map);
  matrix(v.q_map2, spec().key_width, &w.q_map2);
  matrix(v.k_map2, spec().key_width, &w.k_map2);
  vector(v.q_map_bias, &w.q_map_bias);
  vector(v.k_map_bias, &w.k_map_bias);
  vector(v.q_map2_bias, &w.q_map2_bias);
  vector(v.k_map2_bias, &w.k_map2_bias);
  vector(v.theta, &w.theta);
  vector(v.q_norm, &w.q_norm);
  vector(v.k_norm, &w.k_norm);
  vector(v.skip, &w.skip);
  vector(v.out_norm, &w.out_norm);
  vector(v.out_norm_bias, &w.out_norm_bias);
  matrix(v.out_gate, spec().out_gate.width, &w.out_gate);
  vector(v.out_gate_bias, &w.out_gate_bias);
}

std::vector<float> MixerRunner::Run(const std::vector<float>& in,
                                    const std::vector<DecodeRow>& decode,
                                    const std::vector<PromptSegment>& prompts, int64_t layer) {
  const int64_t cols = spec().in_dim, out_cols = spec().out_dim(), rows = in.size() / cols;
  StepRows step;
  step.decode = decode.data();
  step.num_decode = static_cast<int32_t>(decode.size());
  step.prompts = prompts.data();
  step.num_prompts = static_cast<int32_t>(prompts.size());
  cuda::RowOrder order(cuda::LongestShortPrompt());  // of the rows on the device
  order.Arrange(step);
  if (cuda_) {
    const int64_t stride = cuda::Stride(cols);
    std::vector<uint16_t> host(rows * stride);
    for (int64_t r = 0; r < rows; ++r) {
      uint16_t* row = &host[order.Place(static_cast<int32_t>(r)) * stride];
      for (int64_t c = 0; c < cols; ++c) row[c] = ToBf16(in[r * cols + c]);
    }
    EXPECT_EQ(cudaMemcpy(args_.in.data, host.data(), host.size() * 2, cudaMemcpyHostToDevice),
              cudaSuccess);
    EXPECT_EQ(cudaMemset(args_.out.data, 0xff, rows * cuda::Stride(out_cols) * 2), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  } else {
    const int64_t stride = (cols + 15) / 16 * 16;
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(&in[r * cols], cols, static_cast<float*>(args_.in.data) + r * stride);
    }
  }
  backend_->BeginStep(&step);
  args_.layer = layer;
  backend_->Mix(args_);
  const absl::Status status = backend_->Await(backend_->EndStep());
  EXPECT_TRUE(status.ok()) << status;
  std::vector<float> out(rows * out_cols);
  if (cuda_) {
    const int64_t stride = cuda::Stride(out_cols);
    std::vector<uint16_t> host(rows * stride);
    EXPECT_EQ(cudaMemcpy(host.data(), args_.out.data, host.size() * 2, cudaMemcpyDeviceToHost),
              cudaSuccess);
    for (int64_t r = 0; r < rows; ++r) {
      const uint16_t* row = &host[order.Place(static_cast<int32_t>(r)) * stride];
      for (int64_t c = 0; c < out_cols; ++c) out[r * out_cols + c] = FromBf16(row[c]);
    }
  } else {
    const int64_t stride = (out_cols + 15) / 16 * 16;
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(static_cast<float*>(args_.out.data) + r * stride, out_cols, &out[r * out_cols]);
    }
  }
  return out;
}

std::vector<float> MixerRunner::State(int32_t slot, int64_t tokens) {
  std::vector<float> state(MakeStateTable(model_).BytesAt(tokens) / sizeof(float));
  const absl::Status status = backend_->Await(backend_->ReadState(slot, state.data(), tokens));
  EXPECT_TRUE(status.ok()) << status;
  return state;
}

}  // namespace sluice
