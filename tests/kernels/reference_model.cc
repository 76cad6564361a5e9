#include "tests/kernels/reference_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace sluice {
namespace {

using Row = std::vector<double>;

uint16_t ToBF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rounds toward zero; flushes what fp16 cannot hold as a normal number.
uint16_t ToF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000;
  const int32_t exponent = static_cast<int32_t>(bits >> 23 & 255) - 127 + 15;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ff));
}

double FromF16(uint16_t h) {
  const int exponent = h >> 10 & 31;
  if (exponent == 0) return 0.0;
  const double magnitude = std::ldexp(1.0 + (h & 0x3ff) / 1024.0, exponent - 15);
  return h & 0x8000 ? -magnitude : magnitude;
}

double Sigmoid(double x) { return 0.5 * (1 + std::tanh(0.5 * x)); }
double Silu(double x) { return x * Sigmoid(x); }
double LogSigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

double Feature(FeatureMap map, double x) {
  switch (map) {
    case FeatureMap::kIdentity:
      return x;
    case FeatureMap::kRelu:
      return std::max(x, 0.0);
    case FeatureMap::kSigmoid:
      return Sigmoid(x);
    case FeatureMap::kLogSigmoid:
      return LogSigmoid(x);
    case FeatureMap::kSilu:
      return Silu(x);
    case FeatureMap::kSquaredRelu:
      return std::pow(std::max(x, 0.0), 2);
    case FeatureMap::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
    default:  // not gla's
      return NAN;
  }
}

Row Times(const TestMatrix& w, const Row& x) {
  Row y(w.rows, 0.0);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c) y[r] += w.values[r * w.cols + c] * x[c];
  }
  return y;
}

void RmsNorm(const TestMatrix& weight, double eps, double* x, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const double scale = 1 / std::sqrt(sum / n + eps);
  for (int64_t i = 0; i < n; ++i) x[i] *= scale * (weight.values.empty() ? 1.0 : weight.values[i]);
}

Row Normed(Row x, const TestMatrix& weight, double eps) {
  RmsNorm(weight, eps, x.data(), static_cast<int64_t>(x.size()));
  return x;
}

Row ShortConv(const Row& x, const TestMatrix& weight, Row* tail) {
  if (weight.values.empty()) return x;
  const int64_t channels = weight.rows, taps = weight.cols;
  Row inputs = *tail;
  inputs.insert(inputs.end(), x.begin(), x.end());
  Row y(channels, 0.0);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < taps; ++j)
      y[c] += weight.values[c * taps + j] * inputs[j * channels + c];
    y[c] = Silu(y[c]);
  }
  tail->assign(inputs.begin() + channels, inputs.end());
  return y;
}

}  // namespace

TestMatrix RandomMatrix(int64_t rows, int64_t cols, double scale, DType dtype,
                        std::mt19937_64* random, double mean) {
  TestMatrix m{dtype, rows, cols, {}, {}};
  m.bytes.resize(rows * cols * DTypeBytes(dtype));
  m.values.resize(rows * cols);
  std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(scale));
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float x = normal(*random);
    if (dtype == DType::kF32) {
      std::memcpy(&m.bytes[i * 4], &x, 4);
      m.values[i] = x;
    } else {
      const uint16_t h = dtype == DType::kBF16 ? ToBF16(x) : ToF16(x);
      std::memcpy(&m.bytes[i * 2], &h, 2);
      m.values[i] = dtype == DType::kBF16 ? std::bit_cast<float>(uint32_t{h} << 16) : FromF16(h);
    }
  }
  return m;
}

TestModel::TestModel(const GlaShape& shape, const Options& options)
    : shape_(shape), options_(options) {
  shape_.head_norm_affine = options.head_norm_weight;
  std::mt19937_64 random(options.seed);
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return RandomMatrix(rows, cols, 1.0 / std::sqrt(static_cast<double>(cols)), options.dtype,
                        &random);
  };
  const auto norm = [&](int64_t size) {
    return RandomMatrix(1, size, 0.1, options.dtype, &random, 1.0);
  };
  const GlaShape& s = shape;
  embeddings_ = RandomMatrix(s.vocab, s.hidden, 1.0, options.dtype, &random);
  for (int64_t i = 0; i < s.layers; ++i) {
    TestLayer layer;
    layer.attn_norm = norm(s.hidden);
    layer.q = matrix(s.q_dim(), s.hidden);
    layer.k = matrix(s.k_dim(), s.hidden);
    layer.v = matrix(s.v_dim(), s.hidden);
    layer.gate_in = matrix(s.gate_rank, s.hidden);
    if (s.output_gate) layer.g = matrix(s.out_dim(), s.hidden);
    layer.gate = matrix(s.k_dim(), s.gate_rank);
    layer.gate_bias =
        RandomMatrix(1, s.k_dim(), 2.0, options.dtype, &random, options.gate_bias_mean);
    if (s.conv_size > 0) {
      layer.conv_q = matrix(s.q_dim(), s.conv_size);
      layer.conv_k = matrix(s.k_dim(), s.conv_size);
      layer.conv_v = matrix(s.v_dim(), s.conv_size);
    }
    if (options.head_norm_weight) layer.head_norm = norm(s.dv);
    layer.out = matrix(s.hidden, s.out_dim());
    layer.mlp_norm = norm(s.hidden);
    layer.mlp_gate = matrix(s.intermediate, s.hidden);
    layer.mlp_up = matrix(s.intermediate, s.hidden);
    layer.mlp_down = matrix(s.hidden, s.intermediate);
    layers_.push_back(std::move(layer));
  }
  norm_ = norm(s.hidden);
  lm_head_ = options.tied ? embeddings_ : matrix(s.vocab, s.hidden);
}

Weights TestModel::LoadInto(Backend* backend) const {
  const auto linear = [&](std::vector<MatrixView> blocks) {
    absl::StatusOr<Linear> loaded = backend->LoadLinear(blocks);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.value_or(Linear{});
  };
  const auto vector = [&](const TestMatrix& m) {
    if (m.values.empty()) return Vector{};
    absl::StatusOr<Vector> loaded = backend->LoadVector(m.view());
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.value_or(Vector{});
  };
  Weights weights = EmptyWeights(shape_.Spec());
  weights.embeddings = linear({embeddings_.view()});
  for (size_t i = 0; i < layers_.size(); ++i) {
    const TestLayer& layer = layers_[i];
    std::vector<BranchWeights>& branches = weights.layers[i].branches;
    auto& mixer = std::get<MixerWeights>(branches[0].units[0]);
    auto& mlp = std::get<MlpWeights>(branches[1].units[0]);
    std::vector<MatrixView> in = {layer.q.view(), layer.k.view(), layer.v.view(),
                                  layer.gate_in.view()};
    if (shape_.output_gate) in.push_back(layer.g.view());
    branches[0].norm = vector(layer.attn_norm);
    mixer.in = linear(in);
    mixer.gate = linear({layer.gate.view()});
    mixer.gate_bias = vector(layer.gate_bias);
    mixer.conv_q = vector(layer.conv_q);
    mixer.conv_k = vector(layer.conv_k);
    mixer.conv_v = vector(layer.conv_v);
    mixer.out_norm = vector(layer.head_norm);
    mixer.out = linear({layer.out.view()});
    branches[1].norm = vector(layer.mlp_norm);
    absl::StatusOr<Linear> gate_up =
        backend->LoadGateUp(layer.mlp_gate.view(), layer.mlp_up.view());
    EXPECT_TRUE(gate_up.ok()) << gate_up.status();
    mlp.gate_up = gate_up.value_or(Linear{});
    mlp.down = linear({layer.mlp_down.view()});
  }
  weights.norm = vector(norm_);
  weights.lm_head = options_.tied ? weights.embeddings : linear({lm_head_.view()});
  return weights;
}

ReferenceSequence::ReferenceSequence(const TestModel* model) : model_(model) {
  const GlaShape& s = model->shape_;
  LayerState zero;
  zero.matrix.assign(s.kv_heads * s.dk * s.dv, 0.0);
  const int64_t taps = std::max<int64_t>(s.conv_size - 1, 0);
  zero.conv_q.assign(taps * s.q_dim(), 0.0);
  zero.conv_k.assign(taps * s.k_dim(), 0.0);
  zero.conv_v.assign(taps * s.v_dim(), 0.0);
  state_.assign(s.layers, zero);
}

Row ReferenceSequence::Mixer(const Row& x, const TestLayer& layer, LayerState* state) const {
  const GlaShape& s = model_->shape_;
  Row q = ShortConv(Times(layer.q, x), layer.conv_q, &state->conv_q);
  Row k = ShortConv(Times(layer.k, x), layer.conv_k, &state->conv_k);
  const Row v = ShortConv(Times(layer.v, x), layer.conv_v, &state->conv_v);
  const Row z = Times(layer.gate, Times(layer.gate_in, x));
  for (double& e : q) e = Feature(s.feature_map, e) / std::sqrt(static_cast<double>(s.dk));
  for (double& e : k) e = Feature(s.feature_map, e);
  for (int64_t i = 0; i < s.k_dim(); ++i) {
    double log_gate = LogSigmoid(z[i] + layer.gate_bias.values[i]) / 16;
    if (s.clamp_log_gate) log_gate = std::max(log_gate, static_cast<double>(s.log_gate_min));
    for (int64_t j = 0; j < s.dv; ++j) {
      double& element = state->matrix[i * s.dv + j];
      element = std::exp(log_gate) * element + k[i] * v[i / s.dk * s.dv + j];
    }
  }
  Row o(s.out_dim(), 0.0);
  for (int64_t head = 0; head < s.heads; ++head) {
    const double* S = &state->matrix[head / (s.heads / s.kv_heads) * s.dk * s.dv];
    for (int64_t i = 0; i < s.dk; ++i) {
      for (int64_t j = 0; j < s.dv; ++j) o[head * s.dv + j] += q[head * s.dk + i] * S[i * s.dv + j];
    }
    RmsNorm(layer.head_norm, s.norm_eps, &o[head * s.dv], s.dv);
  }
  if (s.output_gate) {
    const Row g = Times(layer.g, x);
    for (size_t i = 0; i < o.size(); ++i) o[i] *= Silu(g[i]);
  }
  return Times(layer.out, o);
}

Row ReferenceSequence::Step(int32_t token) {
  const GlaShape& s = model_->shape_;
  const double* embedding = &model_->embeddings_.values[token * s.hidden];
  Row x(embedding, embedding + s.hidden);
  for (int64_t i = 0; i < s.layers; ++i) {
    const TestLayer& layer = model_->layers_[i];
    const Row y = Mixer(Normed(x, layer.attn_norm, s.norm_eps), layer, &state_[i]);
    for (int64_t c = 0; c < s.hidden; ++c) x[c] += y[c];
    const Row b = Normed(x, layer.mlp_norm, s.norm_eps);
    Row gate = Times(layer.mlp_gate, b);
    const Row up = Times(layer.mlp_up, b);
    for (int64_t c = 0; c < s.intermediate; ++c) gate[c] = Silu(gate[c]) * up[c];
    const Row down = Times(layer.mlp_down, gate);
    for (int64_t c = 0; c < s.hidden; ++c) x[c] += down[c];
  }
  return Times(model_->lm_head_, Normed(x, model_->norm_, s.norm_eps));
}

Row ReferenceSequence::State() const {
  Row all;
  for (const LayerState& layer : state_) {
    for (const Row* part : {&layer.matrix, &layer.conv_q, &layer.conv_k, &layer.conv_v}) {
      all.insert(all.end(), part->begin(), part->end());
    }
  }
  return all;
}

TestDevice::TestDevice(const TestModel& test_model, int threads, int32_t slots, int32_t max_rows,
                       int32_t count_tables)
    : backend(MakeCpuBackend({.threads = threads})), vocab(test_model.shape().vocab) {
  Weights weights = test_model.LoadInto(backend.get());
  const absl::Status status =
      backend->AllocateStates(test_model.shape().Spec(), slots, count_tables, max_rows);
  EXPECT_TRUE(status.ok()) << status;
  auto created =
      Model::Create(backend.get(), test_model.shape().Spec(), std::move(weights), max_rows);
  EXPECT_TRUE(created.ok()) << created.status();
  if (created.ok()) model = std::move(*created);
}

std::vector<LogitResult> TestDevice::Step(const std::vector<DecodeRow>& decode,
                                          const std::vector<PromptSegment>& prompts,
                                          const std::vector<LogitRow>& logits) {
  std::vector<LogitResult> results(logits.size());
  const StepRows rows = {.decode = decode.data(),
                         .num_decode = static_cast<int32_t>(decode.size()),
                         .prompts = prompts.data(),
                         .num_prompts = static_cast<int32_t>(prompts.size()),
                         .logits = logits.data(),
                         .num_logits = static_cast<int32_t>(logits.size()),
                         .results = results.data()};
  const absl::Status status = backend->Await(model->Step(&rows));
  EXPECT_TRUE(status.ok()) << status;
  return results;
}

std::vector<float> TestDevice::Prefill(int32_t slot, const std::vector<int32_t>& tokens,
                                       std::vector<int64_t> cuts) {
  cuts.push_back(static_cast<int64_t>(tokens.size()));
  std::vector<float> logits(tokens.size() * vocab);
  int64_t begin = 0;
  for (int64_t end : cuts) {
    std::vector<LogitRow> rows(end - begin);
    for (int64_t i = begin; i < end; ++i) {
      LogitRow& row = rows[i - begin];
      row.row = static_cast<int32_t>(i - begin);
      row.slot = slot;
      row.target = 0;
      row.logits_out = &logits[i * vocab];
    }
    Step({}, {{slot, begin, static_cast<int32_t>(end - begin), &tokens[begin]}}, rows);
    begin = end;
  }
  return logits;
}

std::vector<float> TestDevice::Decode(int32_t slot, const std::vector<int32_t>& tokens) {
  std::vector<float> logits(tokens.size() * vocab);
  for (size_t i = 0; i < tokens.size(); ++i) {
    LogitRow row;
    row.slot = slot;
    row.target = 0;
    row.logits_out = &logits[i * vocab];
    Step({{slot, tokens[i]}}, {}, {row});
  }
  return logits;
}

std::vector<float> TestDevice::ReadState(int32_t slot) {
  std::vector<float> state(MakeStateTable(model->spec()).bytes() / sizeof(float));
  const absl::Status status = backend->Await(backend->ReadState(slot, state.data(), 0));
  EXPECT_TRUE(status.ok()) << status;
  return state;
}

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

double RelativeRms(const std::vector<float>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace sluice
