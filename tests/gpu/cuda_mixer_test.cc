// The mixer alone on inputs that are equal in both backends, at the shape of the 1.3B model among
// others, and slots whose states lie past 2^31 and 2^32 floats.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <random>

#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/row_order.h"
#include "tests/gpu/gpu_testing.h"

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

// One layer's mixer with random weights on one backend.
class MixerRunner {
 public:
  MixerRunner(std::unique_ptr<Backend> backend, bool cuda, const GlaShape& shape, int32_t slots,
              int32_t max_rows, double gate_bias)
      : backend_(std::move(backend)), cuda_(cuda), shape_(shape), spec_(shape.Spec()) {
    std::mt19937_64 random(5);
    const TestMatrix gate =
        RandomMatrix(shape.k_dim(), shape.gate_rank, 0.5, DType::kBF16, &random);
    const TestMatrix bias = RandomMatrix(1, shape.k_dim(), 1.0, DType::kBF16, &random, gate_bias);
    const TestMatrix norm = RandomMatrix(1, shape.dv, 0.2, DType::kBF16, &random, 1.0);
    const MatrixView gate_view = gate.view();
    weights_.gate = backend_->LoadLinear({&gate_view, 1}).value();
    weights_.gate_bias = backend_->LoadVector(bias.view()).value();
    weights_.out_norm = backend_->LoadVector(norm.view()).value();
    args_.spec = &std::get<MixerSpec>(spec_.layers[0].branches[0].units[0]);
    args_.weights = &weights_;
    const absl::Status status = backend_->AllocateStates(spec_, slots, 1, max_rows);
    EXPECT_TRUE(status.ok()) << status;
    args_.in = backend_->AllocateActivation(max_rows, shape.mixer_in_dim()).value();
    args_.out = backend_->AllocateActivation(max_rows, shape.out_dim()).value();
  }

  // in (rows, mixer_in_dim), bf16 numbers; returns out (rows, out_dim).
  std::vector<float> Run(const std::vector<float>& in, const std::vector<DecodeRow>& decode,
                         const std::vector<PromptSegment>& prompts, int64_t layer) {
    const int64_t cols = shape_.mixer_in_dim(), rows = in.size() / cols;
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
      EXPECT_EQ(cudaMemset(args_.out.data, 0xff, rows * cuda::Stride(shape_.out_dim()) * 2),
                cudaSuccess);
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
    const int64_t out_cols = shape_.out_dim();
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

  std::vector<float> State(int32_t slot) {
    std::vector<float> state(MakeStateTable(spec_).bytes() / sizeof(float));
    const absl::Status status = backend_->Await(backend_->ReadState(slot, state.data()));
    EXPECT_TRUE(status.ok()) << status;
    return state;
  }
  Backend* backend() { return backend_.get(); }

 private:
  std::unique_ptr<Backend> backend_;
  const bool cuda_;
  const GlaShape shape_;
  const ModelSpec spec_;
  MixerWeights weights_;
  MixArgs args_;
};

std::vector<float> RandomInputs(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * cols);
  for (float& v : values) v = FromBf16(ToBf16(normal(random)));
  return values;
}

GlaShape Layer(int64_t heads, int64_t kv_heads, int64_t dk, int64_t dv, int64_t layers = 1) {
  GlaShape s;
  s.vocab = 64;
  s.layers = layers;
  s.hidden = 64;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.dk = dk;
  s.dv = dv;
  s.intermediate = 64;
  return s;
}

constexpr double kMixerTolerance = 5e-3;

void CompareMixers(const GlaShape& shape, double gate_bias, const char* name) {
  MixerRunner cpu(Cpu(), false, shape, 8, 2048, gate_bias),
      gpu(CudaOrDie(), true, shape, 8, 2048, gate_bias);
  const std::vector<PromptSegment> prompts = {{0, 0, 1, nullptr},   {1, 0, 64, nullptr},
                                              {2, 0, 65, nullptr},  {3, 0, 17, nullptr},
                                              {4, 0, 600, nullptr}, {5, 0, 1024, nullptr}};
  // The step's tokens are read by no kernel of the mixer, but they are copied.
  std::vector<PromptSegment> with_tokens = prompts;
  const std::vector<int32_t> tokens(1024);
  int64_t rows = 0;
  for (PromptSegment& p : with_tokens) {
    p.tokens = tokens.data();
    rows += p.length;
  }
  const std::vector<float> in = RandomInputs(rows, shape.mixer_in_dim(), 3);
  const double prompt =
      RelativeRms(gpu.Run(in, {}, with_tokens, 0), cpu.Run(in, {}, with_tokens, 0));
  double decode = 0.0, state = 0.0;
  for (int i = 0; i < 8; ++i) {
    const std::vector<DecodeRow> slots = {{5, 0}, {0, 0}, {3, 0}, {1, 0}, {2, 0}};
    const std::vector<float> row = RandomInputs(slots.size(), shape.mixer_in_dim(), 100 + i);
    decode = std::max(decode, RelativeRms(gpu.Run(row, slots, {}, 0), cpu.Run(row, slots, {}, 0)));
  }
  for (int32_t slot = 0; slot < 6; ++slot)
    state = std::max(state, RelativeRms(gpu.State(slot), cpu.State(slot)));
  std::printf("%-18s prompt %.2e  decode %.2e  state %.2e\n", name, prompt, decode, state);
  EXPECT_LE(prompt, kMixerTolerance);
  EXPECT_LE(decode, kMixerTolerance);
  EXPECT_LE(state, kMixerTolerance);
}

TEST(CudaMixerTest, TheModelsShape) { CompareMixers(Layer(4, 4, 256, 512), 4.0, "4x256x512"); }
TEST(CudaMixerTest, SmallHeads) { CompareMixers(Layer(5, 5, 8, 8), 4.0, "5x8x8"); }
TEST(CudaMixerTest, UnevenHeads) { CompareMixers(Layer(3, 3, 104, 200), 2.0, "3x104x200"); }
TEST(CudaMixerTest, Groups) { CompareMixers(Layer(8, 2, 128, 128), 3.0, "8/2x128x128"); }
TEST(CudaMixerTest, WideValues) { CompareMixers(Layer(1, 1, 64, 1024), 4.0, "1x64x1024"); }
TEST(CudaMixerTest, WideKeys) { CompareMixers(Layer(2, 2, 584, 72), 4.0, "2x584x72"); }
TEST(CudaMixerTest, FastDecay) { CompareMixers(Layer(2, 2, 128, 128), -30.0, "fast decay"); }
TEST(CudaMixerTest, FasterThanCanBeSplit) {
  CompareMixers(Layer(2, 2, 64, 64), -300.0, "extreme decay");
}

// The decode kernel has variants for few and for many rows.
TEST(CudaMixerTest, RowsKeepTheirBitsAmongMany) {
  const GlaShape shape = Layer(4, 4, 256, 512);
  MixerRunner gpu(CudaOrDie(), true, shape, 130, 1024, 4.0);
  const std::vector<int32_t> tokens(100);
  const std::vector<float> prompt = RandomInputs(100, shape.mixer_in_dim(), 3);
  gpu.Run(prompt, {}, {{128, 0, 100, tokens.data()}}, 0);
  gpu.Run(prompt, {}, {{77, 0, 100, tokens.data()}}, 0);
  std::vector<DecodeRow> rows;
  for (int32_t slot = 0; slot < 128; ++slot) rows.push_back({slot, 0});
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> in = RandomInputs(128, shape.mixer_in_dim(), 50 + i);
    const int64_t cols = shape.mixer_in_dim(), out_cols = shape.out_dim();
    const std::vector<float> one(in.begin() + 77 * cols, in.begin() + 78 * cols);
    const std::vector<float> many = gpu.Run(in, rows, {}, 0);
    EXPECT_EQ(gpu.Run(one, {{128, 0}}, {}, 0),
              std::vector<float>(many.begin() + 77 * out_cols, many.begin() + 78 * out_cols));
  }
  EXPECT_EQ(gpu.State(77), gpu.State(128));
}

// Query heads that share a state, in more blocks than a GPU holds at once: none may read the state
// after another has replaced it.
TEST(CudaMixerTest, GroupsOfManyPrompts) {
  constexpr int32_t kPrompts = 300;
  constexpr int64_t kTokens = 65;
  const GlaShape shape = Layer(8, 1, 64, 64);
  MixerRunner gpu(CudaOrDie(), true, shape, kPrompts + 1, kPrompts * kTokens, 4.0);
  const std::vector<int32_t> tokens(kTokens);
  std::vector<PromptSegment> prompts;
  for (int32_t slot = 0; slot < kPrompts; ++slot)
    prompts.push_back({slot, 0, kTokens, tokens.data()});
  const int64_t cols = shape.mixer_in_dim() * kTokens, out_cols = shape.out_dim() * kTokens;
  const std::vector<float> in = RandomInputs(kPrompts * kTokens, shape.mixer_in_dim(), 3);
  const std::vector<float> all = gpu.Run(in, {}, prompts, 0);
  for (const int32_t slot : {0, 1, 149, 299}) {
    gpu.backend()->ZeroState(kPrompts);
    const std::vector<float> one(in.begin() + slot * cols, in.begin() + (slot + 1) * cols);
    EXPECT_EQ(
        gpu.Run(one, {}, {{kPrompts, 0, kTokens, tokens.data()}}, 0),
        std::vector<float>(all.begin() + slot * out_cols, all.begin() + (slot + 1) * out_cols))
        << slot;
    EXPECT_EQ(gpu.State(kPrompts), gpu.State(slot)) << slot;
  }
}

// With states of 50 MB, slot 43 begins past 2^31 bytes, 86 past 2^32 bytes, 171 past 2^31 floats.
TEST(CudaMixerTest, FarSlots) {
  const GlaShape shape = Layer(4, 4, 256, 512, 24);
  MixerRunner gpu(CudaOrDie(), true, shape, 200, 1024, 4.0);
  const std::vector<int32_t> tokens(700);
  const std::vector<float> in = RandomInputs(700, shape.mixer_in_dim(), 3);
  const std::vector<float> row = RandomInputs(1, shape.mixer_in_dim(), 4);
  std::vector<float> prompt_out, row_out, state;
  for (const int32_t slot : {0, 44, 87, 171, 199}) {
    std::vector<float> prompt = gpu.Run(in, {}, {{slot, 0, 700, tokens.data()}}, 23);
    std::vector<float> decoded = gpu.Run(row, {{slot, 0}}, {}, 23);
    std::vector<float> now = gpu.State(slot);
    if (slot == 0) {
      prompt_out = prompt;
      row_out = decoded;
      state = now;
    }
    EXPECT_EQ(prompt, prompt_out) << slot;
    EXPECT_EQ(decoded, row_out) << slot;
    EXPECT_EQ(now, state) << slot;
  }
  for (const int32_t slot : {1, 43, 86, 170, 198}) {
    EXPECT_EQ(gpu.State(slot), std::vector<float>(state.size(), 0.0f)) << "neighbour " << slot;
  }
}

}  // namespace
}  // namespace sluice
