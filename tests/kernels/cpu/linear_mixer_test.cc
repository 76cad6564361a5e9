// The CPU's linear and delta cores on every case of core_cases.h: against the recurrence in fp64 by
// chunks, by the recurrence and by mixes of the two; and bit for bit whatever the cuts, threads and
// company.
#include "kernels/cpu/linear_mixer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/flush_denormals.h"
#include "kernels/cpu/pack.h"
#include "tests/kernels/core_cases.h"

namespace sluice {
namespace {

constexpr int32_t kMaxRows = 1024;
constexpr int32_t kSlots = 4;

// A way to take a sequence through the mixer: lengths of segments, 0 for a decode row.
using Cuts = std::vector<int32_t>;

class Device {
 public:
  Device(const CoreCase& c, int threads)
      : spec_(c.spec), pool_(threads), mixer_(&pool_, &states_), case_(c) {
    EXPECT_TRUE(states_.Allocate(MakeStateTable(Model()), kSlots).ok());
    EXPECT_TRUE(mixer_.Allocate(Model(), kMaxRows).ok());
    weights_.log_decay = AsVector(case_.log_decay);
    weights_.gate_bias = AsVector(case_.gate_bias);
    weights_.a_log = AsVector(case_.a_log);
    weights_.lower_bound = AsVector(case_.lower_bound);
    LoadGate();
    in_.resize(kMaxRows * PaddedCols(spec_.in_dim));
    out_.resize(kMaxRows * PaddedCols(spec_.out_dim()));
  }

  struct Sequence {
    int32_t slot = 0;
    const std::vector<float>* in = nullptr;  // (tokens, in_dim)
    Cuts cuts;
    int64_t position = 0;
    size_t next_cut = 0;
    int64_t start = 0;         // of the prompt that the next segment goes on with
    std::vector<float> out{};  // (tokens, out_dim)

    bool done() const { return next_cut == cuts.size(); }
  };

  // One step: the next cut of each sequence.
  void Step(std::vector<Sequence*> sequences) {
    std::vector<DecodeRow> decode;
    std::vector<PromptSegment> prompts;
    std::stable_partition(sequences.begin(), sequences.end(),
                          [](Sequence* s) { return s->cuts[s->next_cut] == 0; });
    int64_t row = 0;
    for (Sequence* s : sequences) {
      const int32_t length = std::max(1, s->cuts[s->next_cut]);
      states_.MarkUsed(s->slot, 0);
      if (s->cuts[s->next_cut] == 0) {
        decode.push_back({s->slot, 0, s->position});
        s->start = 0;
      } else {
        prompts.push_back({s->slot, s->start, length, nullptr, s->position});
        s->start = length % 64 == 0 ? s->start + length : 0;
      }
      for (int64_t i = 0; i < length; ++i, ++row) {
        std::copy_n(s->in->data() + (s->position + i) * spec_.in_dim, spec_.in_dim,
                    in_.data() + row * PaddedCols(spec_.in_dim));
      }
    }
    StepRows rows;
    rows.decode = decode.data();
    rows.num_decode = static_cast<int32_t>(decode.size());
    rows.prompts = prompts.data();
    rows.num_prompts = static_cast<int32_t>(prompts.size());
    MixArgs args;
    args.spec = &spec_;
    args.weights = &weights_;
    args.in = {in_.data(), kMaxRows, spec_.in_dim};
    args.out = {out_.data(), kMaxRows, spec_.out_dim()};
    {
      const FlushDenormals flush;
      pool_.Wake();
      mixer_.Run(rows, args);
    }
    row = 0;
    for (Sequence* s : sequences) {
      const int32_t length = std::max(1, s->cuts[s->next_cut++]);
      s->position += length;
      for (int64_t i = 0; i < length; ++i, ++row) {
        const float* from = out_.data() + row * PaddedCols(spec_.out_dim());
        s->out.insert(s->out.end(), from, from + spec_.out_dim());
      }
    }
  }

  std::vector<float> Run(int32_t slot, const std::vector<float>& in, const Cuts& cuts) {
    Sequence sequence{slot, &in, cuts};
    states_.Zero(slot);
    while (!sequence.done()) Step({&sequence});
    return sequence.out;
  }

  void Zero(int32_t slot) { states_.Zero(slot); }

  std::vector<float> State(int32_t slot) {
    std::vector<float> state(MakeStateTable(Model()).bytes() / sizeof(float));
    states_.Read(slot, state.data(), 0);
    return state;
  }

 private:
  ModelSpec Model() const {
    ModelSpec model;
    model.layers.resize(1);
    model.layers[0].branches.resize(1);
    model.layers[0].branches[0].units.emplace_back(spec_);
    return model;
  }

  // The gate's matrix in this backend's form, and its bias padded as its vectors are.
  void LoadGate() {
    if (case_.gate.empty()) return;
    const MatrixView view = {case_.gate.data(), DType::kF32, spec_.state_heads * spec_.dk,
                             spec_.gate_in.width};
    absl::StatusOr<PackedMatrix> packed = PackRows({view}, &pool_);
    ASSERT_TRUE(packed.ok());
    gate_ = std::move(*packed);
    weights_.gate = gate_.linear;
    gate_bias_ = case_.gate_bias;
    gate_bias_.resize(PaddedCols(static_cast<int64_t>(gate_bias_.size())));
    weights_.gate_bias.data = gate_bias_.data();
  }

  static Vector AsVector(const std::vector<float>& values) {
    return {values.data(), static_cast<int64_t>(values.size())};
  }

  const MixerSpec spec_;
  ThreadPool pool_;
  StatePool states_;
  LinearMixer mixer_;
  const CoreCase case_;
  MixerWeights weights_;
  PackedMatrix gate_;
  std::vector<float> gate_bias_;
  std::vector<float> in_, out_;
};

Cuts Tokens(int64_t tokens) { return Cuts(tokens, 0); }

double RelativeError(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

class LinearMixerTest : public testing::TestWithParam<CoreCase> {};

TEST_P(LinearMixerTest, AgreesWithTheRecurrenceInFp64) {
  const CoreCase& c = GetParam();
  constexpr int64_t kTokens = 331;
  const std::vector<float> in = CoreInputs(c, kTokens, 1);
  ReferenceCore reference(&c);
  std::vector<double> expected;
  for (int64_t t = 0; t < kTokens; ++t) {
    const std::vector<double> o = reference.Step(in.data() + t * c.spec.in_dim);
    expected.insert(expected.end(), o.begin(), o.end());
  }
  Device device(c, 2);
  Cuts mixed = {64, 17, 0, 0, 128, 0, 1, 64, 33};
  mixed.resize(mixed.size() + kTokens - 64 - 17 - 2 - 128 - 1 - 1 - 64 - 33, 0);
  for (const Cuts& cuts : {Cuts{kTokens}, Tokens(kTokens), mixed}) {
    const std::vector<float> got = device.Run(0, in, cuts);
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_LE(RelativeError(got, expected), c.tolerance);
    const std::vector<float> state = device.State(0);
    EXPECT_LE(RelativeError(state, reference.state()), c.tolerance);
  }
}

TEST_P(LinearMixerTest, BitsDoNotDependOnCutsThreadsOrCompany) {
  const CoreCase& c = GetParam();
  const std::vector<float> in = CoreInputs(c, 300, 2);
  Device one(c, 1), three(c, 3);
  for (const bool prompt : {true, false}) {
    const std::vector<float> alone = one.Run(0, in, prompt ? Cuts{300} : Tokens(300));
    const std::vector<float> state = one.State(0);
    const auto same = [&](const std::vector<float>& got, Device* device, int32_t slot) {
      EXPECT_EQ(std::memcmp(got.data(), alone.data(), alone.size() * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(device->State(slot).data(), state.data(), state.size() * sizeof(float)),
                0);
    };
    same(three.Run(1, in, prompt ? Cuts{64, 128, 108} : Tokens(300)), &three, 1);
    // Beside three others that come and go.
    Device::Sequence sequence{2, &in, prompt ? Cuts{128, 64, 64, 44} : Tokens(300)};
    three.Zero(2);
    std::mt19937_64 random(3);
    std::vector<std::vector<float>> others_in;
    for (uint64_t i = 0; i < 3; ++i) others_in.push_back(CoreInputs(c, 700, 10 + i));
    std::vector<Device::Sequence> others;
    for (int32_t i = 0; i < 3; ++i) {
      const int32_t slot = i < 2 ? i : 3;
      three.Zero(slot);
      Device::Sequence& other = others.emplace_back(Device::Sequence{slot, &others_in[i], {}});
      for (int64_t left = 700; left > 0;) {
        const auto take = std::min<int64_t>(left, static_cast<int64_t>(random() % 90));
        other.cuts.push_back(static_cast<int32_t>(take));
        left -= std::max<int64_t>(take, 1);
      }
      // A prompt may be cut at multiples of 64 alone; each of these is a prompt of its own.
    }
    while (!sequence.done()) {
      std::vector<Device::Sequence*> step = {&sequence};
      for (Device::Sequence& other : others) {
        if (other.done() || random() % 3 == 0) continue;
        other.start = 0;
        step.push_back(&other);
      }
      three.Step(step);
    }
    same(sequence.out, &three, 2);
  }
}

INSTANTIATE_TEST_SUITE_P(CoreCases, LinearMixerTest, testing::ValuesIn(CoreCases()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace sluice
