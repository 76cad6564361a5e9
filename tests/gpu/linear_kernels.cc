#include "tests/gpu/linear_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"

namespace sluice {
namespace {

using cuda::BackGate;
using cuda::BackNorm;
using cuda::LinearDecay;
using Bf16 = __nv_bfloat16;

constexpr float kEps = 1e-5f;

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

void OrDie(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "cuda: %s\n", cudaGetErrorString(error));
  std::exit(2);
}

// Weights that are a function of the case alone.
std::vector<float> Weights(int64_t count, uint64_t seed, float mean, float scale) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = mean + scale * normal(random);
  return values;
}
std::vector<float> NormWeights(const LinearCase& c) { return Weights(c.out_width(), 11, 1, 0.2f); }
std::vector<float> SkipWeights(const LinearCase& c) {
  return Weights(c.out_heads(), 12, 0.5f, 0.5f);
}
std::vector<float> ConstDecays(const LinearCase& c) {
  std::vector<float> decays(c.state_heads);
  for (int32_t h = 0; h < c.state_heads; ++h)
    decays[h] = c.mean_log_decay * static_cast<float>(h + 1) / static_cast<float>(c.state_heads);
  return decays;
}

int64_t DecayWidth(const LinearCase& c) {
  return c.decay == LinearDecay::kHead  ? c.state_heads
         : c.decay == LinearDecay::kKey ? c.state_heads * c.dk
                                        : 0;
}

template <class T>
void Copy(const cuda::Memory& to, const std::vector<T>& from) {
  OrDie(cudaMemcpy(to.as<void>(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
}

double ActOf(BackGate gate, double x) {
  switch (gate) {
    case BackGate::kNone:
      return 1.0;
    case BackGate::kRaw:
      return x;
    case BackGate::kSilu:
      return x / (1 + std::exp(-x));
    case BackGate::kSigmoid:
      return 1 / (1 + std::exp(-x));
  }
  return x;
}

}  // namespace

LinearInputs RandomLinearInputs(const LinearCase& c, int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::exponential_distribution<float> exponential;
  LinearInputs in;
  in.front.resize(rows * c.front_width());
  const int32_t v_first = (c.q_heads + c.k_heads) * c.dk, k_first = c.q_heads * c.dk;
  const float q_scale = 1 / std::sqrt(static_cast<float>(c.dk));
  for (size_t i = 0; i < in.front.size(); ++i) {
    const auto column = static_cast<int32_t>(i % c.front_width());
    float x = normal(random) * (column < k_first ? q_scale : 1.0f);
    if (c.normaliser && column < v_first) x = std::abs(x);
    in.front[i] = FromBf16(ToBf16(x));
  }
  in.log_decay.resize(rows * DecayWidth(c));
  for (float& v : in.log_decay) v = c.mean_log_decay * exponential(random);
  if (c.key_scale) {
    in.key_scale.resize(rows * c.state_heads);
    for (float& v : in.key_scale) v = exponential(random);
  }
  in.gate.resize(c.gate == BackGate::kNone ? 0 : rows * c.out_width());
  for (float& v : in.gate) v = FromBf16(ToBf16(normal(random)));
  return in;
}

void LinearReference::Step(const LinearInputs& in, int64_t row, std::vector<double>* slot,
                           std::vector<float>* out) const {
  const LinearCase& c = case_;
  const float* q = &in.front[row * c.front_width()];
  const float *k = q + c.q_heads * c.dk, *v = k + c.k_heads * c.dk;
  const std::vector<float> constant = ConstDecays(c);
  const int32_t outs = c.out_heads();
  for (int32_t s = 0; s < c.state_heads; ++s) {
    const float* key = k + s / (c.state_heads / c.k_heads) * c.dk;
    const float* value = v + s / (c.state_heads / c.v_heads) * c.dv;
    const double scale = c.key_scale ? in.key_scale[row * c.state_heads + s] : 1.0;
    for (int32_t i = 0; i < c.dk; ++i) {
      double log_decay = 0;
      if (c.decay == LinearDecay::kConst) log_decay = constant[s];
      if (c.decay == LinearDecay::kHead) log_decay = in.log_decay[row * c.state_heads + s];
      if (c.decay == LinearDecay::kKey)
        log_decay = in.log_decay[(row * c.state_heads + s) * c.dk + i];
      const double decay = std::exp(log_decay);
      double* state = slot->data() + (int64_t{s} * c.dk + i) * c.dv;
      for (int32_t j = 0; j < c.dv; ++j) state[j] = decay * state[j] + scale * key[i] * value[j];
      if (c.normaliser) {
        double* z = slot->data() + c.state_floats() + s * c.dk + i;
        *z = decay * *z + scale * key[i];
      }
    }
  }
  std::vector<double> y(c.out_width());
  const std::vector<float> skip = SkipWeights(c), weights = NormWeights(c);
  for (int32_t h = 0; h < outs; ++h) {
    const int32_t s = h / (outs / c.state_heads);
    const float* query = q + h / (outs / c.q_heads) * c.dk;
    double denominator = 0;
    for (int32_t i = 0; i < c.dk; ++i) {
      const double* state = slot->data() + (int64_t{s} * c.dk + i) * c.dv;
      for (int32_t j = 0; j < c.dv; ++j) y[h * c.dv + j] += query[i] * state[j];
      if (c.normaliser) denominator += query[i] * (*slot)[c.state_floats() + s * c.dk + i];
    }
    for (int32_t j = 0; j < c.dv; ++j) {
      double& x = y[h * c.dv + j];
      if (c.normaliser) x /= denominator + 1e-10;
      if (c.skip) x += skip[h] * double{v[h / (outs / c.v_heads) * c.dv + j]};
    }
  }
  const auto gate = [&] {
    if (c.gate == BackGate::kNone) return;
    for (int32_t i = 0; i < c.out_width(); ++i)
      y[i] *= ActOf(c.gate, in.gate[row * c.out_width() + i]);
  };
  if (c.gate_first) gate();
  const int32_t spans = c.norm_spans > 0 ? c.norm_spans : outs, width = c.out_width() / spans;
  for (int32_t span = 0; span < spans && c.norm != BackNorm::kNone; ++span) {
    double* x = &y[span * width];
    double mean = 0, squares = 0;
    for (int32_t i = 0; i < width && c.norm == BackNorm::kLayer; ++i) mean += x[i] / width;
    for (int32_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean) / width;
    for (int32_t i = 0; i < width; ++i) {
      const float weight = weights[c.norm_spans > 0 ? span * width + i : i];
      x[i] = (x[i] - mean) / std::sqrt(squares + kEps) * weight;
    }
  }
  if (!c.gate_first) gate();
  out->insert(out->end(), y.begin(), y.end());
}

cuda::Memory LinearKernels::Allocate(int64_t bytes) {
  absl::StatusOr<cuda::Memory> memory =
      cuda::Memory::Allocate(cuda::MemoryKind::kDevice, bytes + 256, "a test");
  if (!memory.ok()) {
    std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
    std::exit(2);
  }
  return *std::move(memory);
}

LinearKernels::LinearKernels(const LinearCase& c, int32_t slots, int32_t max_rows)
    : case_(c), max_rows_(max_rows) {
  const int64_t rows = max_rows, outs = c.out_heads(), states = c.state_heads;
  const int64_t chunks = rows / cuda::kChunk + 64, spans = chunks / cuda::kSpanChunks + 1;
  const int64_t keys = (c.dk + 63) / 64 * 64, front = cuda::Stride(c.front_width());
  const auto keep = [&](int64_t bytes) {
    memory_.push_back(Allocate(bytes));
    return memory_.back().as<float>();
  };
  states_ = Allocate(slots * c.slot_floats() * 4);
  decode_front_ = Allocate(rows * front * 4);
  prompt_front_ = Allocate(rows * front * 2);
  log_decay_ = Allocate(std::max<int64_t>(rows * DecayWidth(c), states) * 4);
  key_scale_ = Allocate(rows * states * 4);
  gate_ = Allocate(rows * cuda::Stride(c.out_width()) * 2);
  out_ = Allocate(rows * cuda::Stride(c.out_width()) * 2);

  args.decode_front = decode_front_.as<float>();
  args.prompt_front = prompt_front_.as<Bf16>();
  args.front_stride = front;
  args.front_rows = rows;
  args.k_offset = c.q_heads * c.dk;
  args.v_offset = (c.q_heads + c.k_heads) * c.dk;
  args.log_decay = c.decay == LinearDecay::kNone ? nullptr : log_decay_.as<float>();
  args.key_scale = c.key_scale ? key_scale_.as<float>() : nullptr;
  args.states = states_.as<float>();
  args.normalisers = c.normaliser ? states_.as<float>() + c.state_floats() : nullptr;
  args.slot_stride = c.slot_floats();
  args.decay = c.decay;
  args.q_heads = c.q_heads;
  args.k_heads = c.k_heads;
  args.v_heads = c.v_heads;
  args.state_heads = c.state_heads;
  args.out_heads = c.out_heads();
  args.dk = c.dk;
  args.dv = c.dv;
  if (c.decay == LinearDecay::kConst) Copy(log_decay_, ConstDecays(c));

  back.in = gate_.as<Bf16>();
  back.in_stride = cuda::Stride(c.out_width());
  back.gate = c.gate;
  back.gate_first = c.gate_first;
  back.norm = c.norm;
  back.norm_span = c.norm_spans > 0 ? c.out_width() / c.norm_spans : c.dv;
  back.weight_width = c.norm_spans > 0 ? c.out_width() : c.dv;
  back.eps = kEps;
  back.out = out_.as<Bf16>();
  back.out_stride = cuda::Stride(c.out_width());
  float* weights = keep(c.out_width() * 4);
  Copy(memory_.back(), NormWeights(c));
  if (c.norm != BackNorm::kNone) back.norm_weight = weights;
  if (c.skip) {
    back.skip = keep(outs * 4);
    Copy(memory_.back(), SkipWeights(c));
  }

  cuda::ChunkBuffers& b = buffers.chunk;
  b.key_stride = static_cast<int32_t>(keys);
  b.scores = reinterpret_cast<Bf16*>(keep(chunks * outs * cuda::kChunk * cuda::kChunk * 2));
  b.carry = keep(spans * states * keys * cuda::Stride(c.dv) * 4);
  b.span_decay = keep(spans * states * keys * 4);
  if (keys > 256) b.partial = keep(chunks * cuda::kChunk * outs * cuda::Stride(c.dv) * 4);
  if (c.decay == LinearDecay::kKey) {
    b.q = reinterpret_cast<Bf16*>(keep(chunks * outs * cuda::kChunk * keys * 2));
    b.k = reinterpret_cast<Bf16*>(keep(chunks * states * cuda::kChunk * keys * 2));
    b.decay = keep(chunks * states * keys * 4);
  }
  buffers.decays = keep(chunks * states * 2 * cuda::kChunk * 4);
  buffers.denominators = keep(rows * outs * 4);
  buffers.key_sums = keep(chunks * states * c.dk * 4);
  decode_buffers.o = keep(rows * c.out_width() * 4);
  decode_buffers.denominators = keep(rows * outs * 4);
  decode_buffers.arrivals = reinterpret_cast<int32_t*>(keep(rows * 4));
}

void LinearKernels::Upload(const LinearInputs& in) {
  const LinearCase& c = case_;
  const int64_t width = c.front_width(), rows = static_cast<int64_t>(in.front.size()) / width;
  const int64_t stride = args.front_stride, out_stride = back.in_stride;
  std::vector<float> decode(rows * stride);
  std::vector<uint16_t> prompt(rows * stride), gate(rows * out_stride);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      decode[r * stride + i] = in.front[r * width + i];
      prompt[r * stride + i] = ToBf16(in.front[r * width + i]);
    }
    for (int64_t i = 0; i < c.out_width() && !in.gate.empty(); ++i)
      gate[r * out_stride + i] = ToBf16(in.gate[r * c.out_width() + i]);
  }
  Copy(decode_front_, decode);
  Copy(prompt_front_, prompt);
  Copy(gate_, gate);
  if (!in.log_decay.empty()) Copy(log_decay_, in.log_decay);
  if (!in.key_scale.empty()) Copy(key_scale_, in.key_scale);
}

std::vector<float> LinearKernels::Run(const LinearInputs& in, const std::vector<DecodeRow>& decode,
                                      const std::vector<PromptSegment>& prompts) {
  Upload(in);
  StepRows step;
  step.decode = decode.data();
  step.num_decode = static_cast<int32_t>(decode.size());
  step.prompts = prompts.data();
  step.num_prompts = static_cast<int32_t>(prompts.size());
  // Prompts stay in the order of `in`.
  cuda::StepPacker packer(static_cast<int>(max_rows_ / cuda::kChunk + 64), 0);
  std::vector<char> block(cuda::StepPacker::MaxBytes(step));
  cuda::StepPlan plan;
  packer.Pack(step, nullptr, block.data(), &plan);
  const cuda::Memory meta = Allocate(static_cast<int64_t>(block.size()));
  Copy(meta, block);
  OrDie(cudaMemset(out_.as<void>(), 0xff, out_.bytes()));
  OrDie(cudaMemset(decode_buffers.o, 0xff, max_rows_ * case_.out_width() * 4));
  cuda::LinearArgs now = args;
  now.meta = meta.as<const cuda::StepHeader>();
  if (!decode.empty())
    OrDie(cuda::LaunchLinearDecode(now, back, decode_buffers, step.num_decode, nullptr));
  if (!prompts.empty())
    OrDie(cuda::LaunchLinearPrompts(now, back, buffers, plan.waves, step.num_decode,
                                    plan.num_prompt, nullptr));
  OrDie(cudaDeviceSynchronize());
  const int64_t rows = step.num_decode + plan.num_prompt, stride = back.out_stride;
  std::vector<uint16_t> host(rows * stride);
  OrDie(cudaMemcpy(host.data(), out_.as<void>(), host.size() * 2, cudaMemcpyDeviceToHost));
  std::vector<float> out(rows * case_.out_width());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = FromBf16(host[i / case_.out_width() * stride + i % case_.out_width()]);
  return out;
}

std::vector<float> LinearKernels::Slot(int32_t slot) {
  std::vector<float> values(case_.slot_floats());
  OrDie(cudaMemcpy(values.data(), args.states + slot * args.slot_stride, values.size() * 4,
                   cudaMemcpyDeviceToHost));
  return values;
}

void LinearKernels::SetSlot(int32_t slot, const std::vector<float>& values) {
  OrDie(cudaMemcpy(args.states + slot * args.slot_stride, values.data(), values.size() * 4,
                   cudaMemcpyHostToDevice));
}

}  // namespace sluice
