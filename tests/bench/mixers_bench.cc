// Shapes are those of published 1.3 B models; weights and inputs are random. A decode row reads and
// writes its state once, so its column is what that makes a second; a prompt's is the time of a
// token. Each figure is the best of five rounds.
#include "tests/bench/mixers_bench.h"

#include <cmath>
#include <cstdio>
#include <deque>
#include <random>
#include <vector>

#include "kernels/cpu/flush_denormals.h"
#include "kernels/cpu/linear_mixer.h"
#include "kernels/cpu/pack.h"
#include "tests/bench/best_time.h"

namespace sluice {
namespace {

constexpr int32_t kMaxRows = 2048, kSlots = 32;

struct BenchCase {
  const char* name;
  MixerSpec spec;
};

MixerSpec Heads(int64_t key_heads, int64_t state_heads, int64_t dk, int64_t dv) {
  MixerSpec s;
  s.q_heads = s.k_heads = key_heads;
  s.v_heads = s.state_heads = state_heads;
  s.key_width = s.dk = dk;
  s.dv = dv;
  s.q = {0, key_heads * dk};
  s.k = {s.q.end(), key_heads * dk};
  s.v = {s.k.end(), state_heads * dv};
  s.q_scale = 1.0f / std::sqrt(static_cast<float>(dk));
  s.in_dim = s.v.end();
  return s;
}

MixerSpec Gated(MixerSpec s, Decay decay, GateMap gate, int64_t columns) {
  s.decay = decay;
  s.gate = gate;
  s.gate_in = {s.in_dim, columns};
  s.in_dim = s.gate_in.end();
  return s;
}

MixerSpec Delta(MixerSpec s) {
  s.core = Core::kDelta;
  s.conv.taps = 4;
  s.q_norm = s.k_norm = QkNorm::kL2;
  s.beta = {s.in_dim, s.state_heads};
  s.in_dim = s.beta.end();
  return s;
}

std::vector<BenchCase> Cases() {
  MixerSpec hgrn2 = Gated(Heads(16, 16, 128, 128), Decay::kKey, GateMap::kHgrn2, 0);
  hgrn2.gate_in = hgrn2.k;
  return {
      {"retnet 8 of 256x512", Gated(Heads(8, 8, 256, 512), Decay::kConst, GateMap::kNone, 0)},
      {"hgrn2 16 of 128x128", hgrn2},
      {"delta_net 16 of 128x128",
       Delta(Gated(Heads(16, 16, 128, 128), Decay::kNone, GateMap::kNone, 0))},
      {"gated_deltanet 8 of 256x256",
       Delta(Gated(Heads(8, 8, 256, 256), Decay::kHead, GateMap::kGatedDelta, 8))},
      {"kda 16 of 128x128", Delta(Gated(Heads(16, 16, 128, 128), Decay::kKey, GateMap::kKda, 128))},
  };
}

// A mixer's weights; owns what they point to.
class RandomWeights {
 public:
  RandomWeights(const MixerSpec& s, ThreadPool* pool) {
    if (s.conv.taps > 0) {
      weights_.conv_q = Values(s.q.width * s.conv.taps, 0.5f);
      weights_.conv_k = Values(s.k.width * s.conv.taps, 0.5f);
      weights_.conv_v = Values(s.v.width * s.conv.taps, 0.5f);
    }
    const int64_t gates = s.state_heads * (s.decay == Decay::kKey ? s.dk : 1);
    weights_.log_decay = Values(s.state_heads, -0.01f);
    weights_.gate_bias = Values(gates, -4.0f);
    weights_.a_log = Values(s.state_heads, 0.5f);
    weights_.lower_bound = Values(gates, 0.3f);
    weights_.out_norm = Values(s.dv, 1.0f);
    if (s.gate != GateMap::kKda) return;
    const std::vector<float> gate(gates * s.gate_in.width, 0.01f);
    auto packed = PackRows({{gate.data(), DType::kF32, gates, s.gate_in.width}}, pool);
    if (!packed.ok()) return;
    gate_ = std::move(*packed);
    weights_.gate = gate_.linear;
  }

  const MixerWeights& weights() const { return weights_; }

 private:
  Vector Values(int64_t count, float value) {
    values_.emplace_back(PaddedCols(count), value);
    return {values_.back().data(), count};
  }

  std::deque<std::vector<float>> values_;
  PackedMatrix gate_;
  MixerWeights weights_;
};

void BenchOne(ThreadPool* pool, const BenchCase& c) {
  StatePool states;
  LinearMixer mixer(pool, &states);
  ModelSpec model;
  model.layers.resize(1);
  model.layers[0].branches.push_back({Norm(), {c.spec}});
  const StateTable table = MakeStateTable(model);
  if (!states.Allocate(table, kSlots).ok() || !mixer.Allocate(model, kMaxRows).ok()) return;
  const RandomWeights weights(c.spec, pool);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> in(kMaxRows * PaddedCols(c.spec.in_dim));
  for (float& x : in) x = normal(random);
  std::vector<float> out(kMaxRows * PaddedCols(c.spec.out_dim()));
  MixArgs args;
  args.spec = &c.spec;
  args.weights = &weights.weights();
  args.in = {in.data(), kMaxRows, c.spec.in_dim};
  args.out = {out.data(), kMaxRows, c.spec.out_dim()};
  std::printf("%-28s |", c.name);
  const FlushDenormals flush;
  std::vector<DecodeRow> decode;
  for (int32_t slot = 0; slot < kSlots; ++slot) decode.push_back({slot, 0, 100});
  for (const int32_t rows : {1, kSlots}) {
    const double seconds =
        BestTime([&] { mixer.Run({.decode = decode.data(), .num_decode = rows}, args); });
    const double bytes = 2.0 * static_cast<double>(table.parts()[0].bytes()) * rows;
    std::printf(" %7.1f %6.1f |", seconds * 1e6 / rows, bytes / seconds * 1e-9);
  }
  for (const int32_t length : {64, 2048}) {
    const PromptSegment segment = {0, 0, length, nullptr, 0};
    const double seconds =
        BestTime([&] { mixer.Run({.prompts = &segment, .num_prompts = 1}, args); });
    std::printf(" %7.1f", seconds * 1e6 / length);
  }
  std::printf("\n");
}

}  // namespace

void BenchMixers(ThreadPool* pool) {
  std::printf("\nMixers of a layer, us a token  | decode, and GB/s of state        | prompt of\n");
  std::printf("%-28s | %14d | %14d | %7d %7d\n", "", 1, kSlots, 64, 2048);
  for (const BenchCase& c : Cases()) BenchOne(pool, c);
}

}  // namespace sluice
