// The CPU's softmax core: against attention in fp64 by segments, by single rows and by mixes of the
// two; bit for bit whatever the cuts, threads and company; and what states keep of it.
#include "kernels/cpu/softmax_mixer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cores.h"
#include "kernels/cpu/flush_denormals.h"

namespace sluice {
namespace {

constexpr double kTolerance = 2e-6;  // relative root mean square error
constexpr int32_t kMaxRows = 1024;
constexpr int32_t kSlots = 4;
constexpr int64_t kMaxTokens = 2600;  // more than two spans of a decode row

struct Case {
  std::string name;
  int64_t heads, kv_heads, dk, dv, window;
  bool norm = false, gate = false;
  int64_t rope_dims = 0;
  double scale = 1.0;  // deviation of queries and keys
};

const Case kCases[] = {
    {.name = "full", .heads = 2, .kv_heads = 2, .dk = 16, .dv = 16, .window = 0, .rope_dims = 16},
    {.name = "grouped",
     .heads = 8,
     .kv_heads = 2,
     .dk = 32,
     .dv = 32,
     .window = 0,
     .norm = true,
     .gate = true,
     .rope_dims = 8},
    {.name = "one_head_odd", .heads = 3, .kv_heads = 1, .dk = 13, .dv = 7, .window = 0},
    {.name = "window",
     .heads = 4,
     .kv_heads = 2,
     .dk = 24,
     .dv = 40,
     .window = 100,
     .rope_dims = 24},
    {.name = "window_of_a_block", .heads = 2, .kv_heads = 1, .dk = 16, .dv = 16, .window = 64},
    {.name = "window_of_one", .heads = 2, .kv_heads = 2, .dk = 8, .dv = 8, .window = 1},
    {.name = "wide_window", .heads = 2, .kv_heads = 1, .dk = 16, .dv = 24, .window = 1500},
    {.name = "many_heads", .heads = 70, .kv_heads = 1, .dk = 8, .dv = 8, .window = 0},
    {.name = "peaked", .heads = 2, .kv_heads = 2, .dk = 64, .dv = 16, .window = 0, .scale = 6},
};

MixerSpec SpecOf(const Case& c) {
  MixerSpec s;
  s.core = Core::kSoftmax;
  s.decay = Decay::kNone;
  s.gate = GateMap::kNone;
  s.q_heads = c.heads;
  s.k_heads = s.v_heads = s.state_heads = c.kv_heads;
  s.key_width = s.dk = c.dk;
  s.dv = c.dv;
  s.q = {0, c.heads * c.dk};
  s.k = {s.q.end(), c.kv_heads * c.dk};
  s.v = {s.k.end(), c.kv_heads * c.dv};
  s.out_gate = {s.v.end(), c.gate ? c.heads * c.dv : 0};
  s.out_act = Act::kSigmoid;
  s.in_dim = s.out_gate.end();
  s.window = c.window;
  if (c.norm) s.q_norm = s.k_norm = QkNorm::kRms;
  if (c.rope_dims > 0) s.rope = Rope::kTable;
  s.rope_dims = c.rope_dims;
  s.rope_divisor = 2.0f;
  s.rope_scale = 1.1f;
  s.q_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dk)));
  s.out_norm.kind = NormKind::kNone;
  return s;
}

ModelSpec ModelOf(const Case& c) {
  ModelSpec model;
  LayerSpec layer;
  layer.branches.push_back({{}, {SpecOf(c)}});
  model.layers.assign(2, layer);
  return model;
}

struct Values {
  std::vector<float> theta, q_norm, k_norm;
};

Values ValuesOf(const Case& c) {
  Values values;
  for (int64_t i = 0; i < c.rope_dims / 2; ++i) {
    values.theta.push_back(static_cast<float>(std::pow(1000.0, -2.0 * i / c.rope_dims)));
  }
  for (int64_t i = 0; i < c.dk; ++i) {
    values.q_norm.push_back(1.0f + 0.1f * static_cast<float>(i % 5));
    values.k_norm.push_back(0.8f + 0.1f * static_cast<float>(i % 7));
  }
  return values;
}

std::vector<float> Inputs(const Case& c, int64_t rows, uint64_t seed) {
  const MixerSpec s = SpecOf(c);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> in(rows * s.in_dim);
  for (size_t i = 0; i < in.size(); ++i) {
    const bool compared = static_cast<int64_t>(i) % s.in_dim < s.k.end();
    in[i] = static_cast<float>(normal(random) * (compared ? c.scale : 1.0));
  }
  return in;
}

// All of a sequence in fp64.
std::vector<double> Reference(const Case& c, const std::vector<float>& in) {
  const MixerSpec s = SpecOf(c);
  const Values values = ValuesOf(c);
  const auto tokens = static_cast<int64_t>(in.size()) / s.in_dim;
  const auto head_of = [&](int64_t t, int64_t column, const std::vector<float>& weight) {
    std::vector<double> x(in.begin() + t * s.in_dim + column,
                          in.begin() + t * s.in_dim + column + c.dk);
    if (c.norm) {
      double squares = 0;
      for (double one : x) squares += one * one;
      const double size = std::sqrt(squares / static_cast<double>(c.dk) + 1e-6);
      for (int64_t i = 0; i < c.dk; ++i) x[i] = x[i] / size * weight[i];
    }
    const int64_t half = c.rope_dims / 2;
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(t) / s.rope_divisor * values.theta[i];
      const double cosine = std::cos(double{angle}) * s.rope_scale;
      const double sine = std::sin(double{angle}) * s.rope_scale;
      const double a = x[i], b = x[half + i];
      x[i] = a * cosine - b * sine;
      x[half + i] = a * sine + b * cosine;
    }
    return x;
  };
  std::vector<std::vector<double>> keys;  // by token and head
  std::vector<double> out;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < c.kv_heads; ++h) {
      keys.push_back(head_of(t, s.k.offset + h * c.dk, values.k_norm));
    }
    for (int64_t h = 0; h < c.heads; ++h) {
      const std::vector<double> q = head_of(t, s.q.offset + h * c.dk, values.q_norm);
      const int64_t kv = h / (c.heads / c.kv_heads);
      const int64_t first = c.window == 0 ? 0 : std::max<int64_t>(0, t - c.window + 1);
      std::vector<double> scores;
      for (int64_t u = first; u <= t; ++u) {
        double score = 0;
        for (int64_t i = 0; i < c.dk; ++i) score += q[i] * keys[u * c.kv_heads + kv][i];
        scores.push_back(score * s.q_scale);
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double total = 0;
      std::vector<double> o(c.dv);
      for (int64_t u = first; u <= t; ++u) {
        const double weight = std::exp(scores[u - first] - largest);
        total += weight;
        for (int64_t i = 0; i < c.dv; ++i) {
          o[i] += weight * in[u * s.in_dim + s.v.offset + kv * c.dv + i];
        }
      }
      for (int64_t i = 0; i < c.dv; ++i) {
        const double gate =
            c.gate
                ? 1 / (1 + std::exp(-double{in[t * s.in_dim + s.out_gate.offset + h * c.dv + i]}))
                : 1;
        out.push_back(o[i] / total * gate);
      }
    }
  }
  return out;
}

double RelativeError(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

// Lengths of prompt segments; 0: a decode row.
using Cuts = std::vector<int32_t>;

Cuts Tokens(int64_t count) { return Cuts(count, 0); }

struct Sequence {
  int32_t slot = 0;
  const std::vector<float>* in = nullptr;  // (tokens, in_dim)
  Cuts cuts{};
  int64_t position = 0;
  size_t next_cut = 0;
  std::vector<float> out{};  // (tokens, out_dim)

  bool done() const { return next_cut == cuts.size(); }
};

class Device {
 public:
  Device(const Case& c, int threads)
      : case_(c), spec_(SpecOf(c)), values_(ValuesOf(c)), pool_(threads), mixer_(&pool_, &states_) {
    const int64_t pages = kSlots * PagesFor(kMaxTokens);
    EXPECT_TRUE(states_.Allocate(MakeStateTable(ModelOf(c)), kSlots, {kMaxTokens, pages}).ok());
    EXPECT_TRUE(mixer_.Allocate(ModelOf(c), kMaxRows, kMaxTokens).ok());
    weights_.theta = {values_.theta.data(), static_cast<int64_t>(values_.theta.size())};
    weights_.q_norm = {values_.q_norm.data(), c.dk};
    weights_.k_norm = {values_.k_norm.data(), c.dk};
    in_.resize(kMaxRows * PaddedCols(spec_.in_dim));
    out_.resize(kMaxRows * PaddedCols(spec_.out_dim()));
  }

  void Step(std::vector<Sequence*> sequences) {
    std::vector<DecodeRow> decode;
    std::vector<PromptSegment> prompts;
    std::stable_partition(sequences.begin(), sequences.end(),
                          [](Sequence* s) { return s->cuts[s->next_cut] == 0; });
    int64_t row = 0;
    for (Sequence* s : sequences) {
      const int32_t length = std::max(1, s->cuts[s->next_cut]);
      states_.MarkUsed(s->slot, s->position + length);
      if (s->cuts[s->next_cut] == 0) {
        decode.push_back({s->slot, 0, s->position});
      } else {
        prompts.push_back({s->slot, 0, length, nullptr, s->position});
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
    args.layer = 1;
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

  void Run(Sequence* sequence) {
    while (!sequence->done()) Step({sequence});
  }
  std::vector<float> Run(int32_t slot, const std::vector<float>& in, const Cuts& cuts) {
    Sequence sequence{slot, &in, cuts};
    states_.Zero(slot);
    Run(&sequence);
    return sequence.out;
  }

  StatePool& states() { return states_; }
  std::vector<float> State(int32_t slot, int64_t tokens) {
    std::vector<float> state(MakeStateTable(ModelOf(case_)).BytesAt(tokens) / sizeof(float));
    states_.Read(slot, state.data(), tokens);
    return state;
  }

 private:
  const Case case_;
  const MixerSpec spec_;
  const Values values_;
  ThreadPool pool_;
  StatePool states_;
  SoftmaxMixer mixer_;
  MixerWeights weights_;
  std::vector<float> in_, out_;
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class SoftmaxMixerTest : public testing::TestWithParam<Case> {};

TEST_P(SoftmaxMixerTest, ComputesAttention) {
  const Case& c = GetParam();
  ASSERT_TRUE(CheckSpec(DeviceKind::kCpu, ModelOf(c)).ok());
  constexpr int64_t kTokens = 331;
  const std::vector<float> in = Inputs(c, kTokens, 1);
  const std::vector<double> expected = Reference(c, in);
  Device device(c, 2);
  Cuts mixed = {64, 17, 0, 0, 128, 0, 1, 64, 33};
  mixed.resize(mixed.size() + kTokens - 64 - 17 - 2 - 128 - 1 - 1 - 64 - 33, 0);
  for (const Cuts& cuts : {Cuts{kTokens}, Tokens(kTokens), mixed}) {
    EXPECT_LE(RelativeError(device.Run(0, in, cuts), expected), kTolerance);
  }
}

TEST_P(SoftmaxMixerTest, ALongTextIsReadBySpans) {
  const Case& c = GetParam();
  constexpr int64_t kTokens = 2500;
  const std::vector<float> in = Inputs(c, kTokens, 2);
  Device device(c, 2);
  Cuts cuts = {1000, 1000, 490};
  cuts.resize(cuts.size() + 10, 0);
  const std::vector<float> got = device.Run(0, in, cuts);
  // The last rows alone: all of it in fp64 takes long.
  const std::vector<float> prompt = device.Run(1, in, {1000, 1000, 500});
  const size_t tail = got.size() - 10 * SpecOf(c).out_dim();
  const std::vector<double> expected(prompt.begin() + static_cast<int64_t>(tail), prompt.end());
  EXPECT_LE(RelativeError({got.begin() + static_cast<int64_t>(tail), got.end()}, expected),
            kTolerance);
}

TEST_P(SoftmaxMixerTest, BitsDoNotDependOnCutsThreadsOrCompany) {
  const Case& c = GetParam();
  const std::vector<float> in = Inputs(c, 300, 3);
  Device one(c, 1), three(c, 3);
  for (const bool prompt : {true, false}) {
    const std::vector<float> alone = one.Run(0, in, prompt ? Cuts{300} : Tokens(300));
    const std::vector<float> state = one.State(0, 300);
    EXPECT_TRUE(SameBits(three.Run(1, in, prompt ? Cuts{64, 128, 108} : Tokens(300)), alone));
    EXPECT_TRUE(SameBits(three.State(1, 300), state));
    // Beside three others that come and go.
    Sequence sequence{2, &in, prompt ? Cuts{128, 64, 64, 44} : Tokens(300)};
    std::mt19937_64 random(4);
    std::vector<std::vector<float>> others_in;
    for (uint64_t i = 0; i < 3; ++i) others_in.push_back(Inputs(c, 700, 10 + i));
    std::vector<Sequence> others;
    for (int32_t i = 0; i < 3; ++i) {
      Sequence& other = others.emplace_back(Sequence{i < 2 ? i : 3, &others_in[i]});
      for (int64_t left = 700; left > 0;) {
        const auto take = std::min<int64_t>(left, static_cast<int64_t>(random() % 90));
        other.cuts.push_back(static_cast<int32_t>(take));
        left -= std::max<int64_t>(take, 1);
      }
    }
    for (int32_t slot = 0; slot < kSlots; ++slot) three.states().Zero(slot);
    while (!sequence.done()) {
      std::vector<Sequence*> step = {&sequence};
      for (Sequence& other : others) {
        if (!other.done() && random() % 3 != 0) step.push_back(&other);
      }
      three.Step(step);
    }
    EXPECT_TRUE(SameBits(sequence.out, alone));
    EXPECT_TRUE(SameBits(three.State(2, 300), state));
  }
}

TEST_P(SoftmaxMixerTest, ACopyAndAStateFromTheHostGoOnWithTheSameBits) {
  const Case& c = GetParam();
  const std::vector<float> in = Inputs(c, 200, 5), other_in = Inputs(c, 200, 6);
  Device device(c, 2);
  const std::vector<float> whole = device.Run(0, in, {128, 22, 0, 0, 48});
  Sequence first{1, &in, {128, 22}};
  device.Run(&first);
  const std::vector<float> state = device.State(1, 150);
  device.states().Copy(1, 2);
  // What becomes of the one is nothing to the other.
  Sequence astray{1, &other_in, {0, 0, 48}, 150};
  device.Run(&astray);
  Sequence copy{2, &in, {0, 0, 48}, 150};
  device.Run(&copy);
  const auto tail = whole.begin() + 150 * SpecOf(c).out_dim();
  EXPECT_TRUE(SameBits(copy.out, {tail, whole.end()}));
  device.states().Write(3, state.data(), 150);
  Sequence restored{3, &in, {0, 0, 48}, 150};
  device.Run(&restored);
  EXPECT_TRUE(SameBits(restored.out, {tail, whole.end()}));
  EXPECT_TRUE(SameBits(device.State(3, 200), device.State(2, 200)));
}

TEST_P(SoftmaxMixerTest, ANanReachesTheRowsThatSeeItAlone) {
  const Case& c = GetParam();
  std::vector<float> in = Inputs(c, 150, 7);
  const MixerSpec s = SpecOf(c);
  Device device(c, 2);
  const std::vector<float> clean = device.Run(0, in, {150});
  in[100 * s.in_dim + s.v.offset] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> got = device.Run(0, in, {150});
  EXPECT_TRUE(SameBits({got.begin(), got.begin() + 100 * s.out_dim()},
                       {clean.begin(), clean.begin() + 100 * s.out_dim()}));
  EXPECT_TRUE(std::isnan(got[100 * s.out_dim()]));
  if (c.window > 0 && c.window < 40) {
    EXPECT_TRUE(SameBits({got.begin() + 140 * s.out_dim(), got.end()},
                         {clean.begin() + 140 * s.out_dim(), clean.end()}));
  } else {
    EXPECT_TRUE(std::isnan(got[110 * s.out_dim()]));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SoftmaxMixerTest, testing::ValuesIn(kCases),
                         [](const auto& param) { return param.param.name; });

TEST(TokenPages, CopiesShareFullPagesAndAllComeBack) {
  const Case c = {.name = "", .heads = 1, .kv_heads = 1, .dk = 4, .dv = 4, .window = 0};
  StatePool pool;
  ASSERT_TRUE(pool.Allocate(MakeStateTable(ModelOf(c)), 3, {1000, 20}).ok());
  EXPECT_EQ(pool.pages().total(), 20);
  pool.MarkUsed(0, 150);  // two full pages and a part of one
  EXPECT_EQ(pool.pages().free(), 17);
  pool.Copy(0, 1);
  EXPECT_EQ(pool.pages().free(), 16);
  EXPECT_EQ(pool.pages().shared(), 2);
  pool.Copy(1, 2);
  EXPECT_EQ(pool.pages().free(), 15);
  EXPECT_EQ(pool.pages().shared(), 2);
  pool.MarkUsed(1, 400);
  EXPECT_EQ(pool.pages().free(), 11);
  pool.Zero(0);
  EXPECT_EQ(pool.pages().free(), 12);
  EXPECT_EQ(pool.pages().shared(), 2);
  pool.Zero(1);
  EXPECT_EQ(pool.pages().shared(), 0);
  pool.Zero(2);
  EXPECT_EQ(pool.pages().free(), 20);
}

}  // namespace
}  // namespace sluice
