// Real checkpoints from the file to logits: every golden variant and the bundled model on the CUDA
// backend, against the goldens' float64 and against the CPU backend on the same weights.
//
// SLUICE_GOLDENS (default tests/goldens) and SLUICE_MODEL (default deploy/models/classics-12m) say
// where they lie; SLUICE_GOLDEN_ERRORS names a file to write the errors of every checkpoint to.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/model.h"
#include "nlohmann/json.hpp"
#include "tests/gpu/engine_on_gpu.h"

namespace sluice {
namespace {

constexpr double kLogitsTolerance = 1e-2;
// The tolerance of the variants, whose heads are 8 to 32 wide: there bf16 activations alone cost
// more, FLA's own model as much as ours. fla_errors.py compares the two, checkpoint by checkpoint.
constexpr double kVariantTolerance = 4e-2;
constexpr double kStateTolerance = 2e-2;
constexpr float kClearMargin = 0.25f;  // below it bf16 may choose another token
constexpr int32_t kMaxRows = 4096;
// Every so many-th row of a long prompt is compared. A few rows make most of the error: with every
// 128th, that of 32 rows says little of the backend.
constexpr int32_t kEvery = 16;
constexpr int32_t kSlots = 8;

struct GoldenModel {
  friend std::ostream& operator<<(std::ostream& out, const GoldenModel& model) {
    return out << model.name;
  }
  std::string name;
  std::string dir;
  std::string golden;
};

std::vector<GoldenModel> AllModels() {
  const std::string goldens = PathFrom("SLUICE_GOLDENS", "tests/goldens");
  std::vector<GoldenModel> models;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(goldens + "/variants", error)) {
    const std::string dir = entry.path().string();
    models.push_back({entry.path().filename().string(), dir, dir + "/golden.json"});
  }
  std::sort(models.begin(), models.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  models.push_back({"classics_12m", BundledModel(), goldens + "/classics-12m.json"});
  return models;
}

struct Case {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // after the last of ids
};

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(path));
  for (const auto& json : golden.at("cases")) {
    cases.push_back(
        {json.at("ids").get<std::vector<int32_t>>(), json.at("logits").get<std::vector<float>>()});
  }
  return cases;
}

using LogitsOfRow = std::vector<float>;

// A checkpoint on a backend, with sequences in its slots.
class Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Create(std::unique_ptr<Backend> backend,
                                                        const std::string& dir) {
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(dir);
    if (!checkpoint.ok()) return checkpoint.status();
    auto device = std::make_unique<Device>();
    device->backend_ = std::move(backend);
    device->spec_ = (*checkpoint)->config().spec;
    device->spec_.first_unsampled = 0;  // a golden goes on with the best row, also one of padding
    std::string fingerprint;
    absl::StatusOr<Weights> weights = (*checkpoint)->Load(device->backend_.get(), {}, &fingerprint);
    if (!weights.ok()) return weights.status();
    constexpr int64_t kMostTokens = 4096;
    device->backend_->SetAttentionRoom({kMostTokens, (kSlots + 1) * PagesFor(kMostTokens)});
    const absl::Status states =
        device->backend_->AllocateStates(device->spec_, kSlots, 1, kMaxRows);
    if (!states.ok()) return states;
    absl::StatusOr<std::unique_ptr<Model>> model =
        Model::Create(device->backend_.get(), device->spec_, *std::move(weights), kMaxRows);
    if (!model.ok()) return model.status();
    device->model_ = *std::move(model);
    return device;
  }

  // One step; the logits of every `every`-th row counted from each segment's last, and of each
  // decode row, decode rows first. Where `sampled` is given, decode rows draw from the model.
  std::vector<LogitsOfRow> Step(const std::vector<DecodeRow>& decode,
                                const std::vector<PromptSegment>& prompts, int32_t every = kMaxRows,
                                std::vector<int32_t>* sampled = nullptr) {
    static constexpr SamplingConfig kPlain = {.temperature = 1.0f};
    std::vector<LogitRow> rows;
    int32_t row = 0;
    for (const DecodeRow& d : decode) rows.push_back({.row = row++, .slot = d.slot});
    for (const PromptSegment& p : prompts) {
      for (int32_t i = (p.length - 1) % every; i < p.length; i += every) {
        rows.push_back({.row = row + i, .slot = p.slot});
      }
      row += p.length;
    }
    std::vector<LogitsOfRow> logits(rows.size(), LogitsOfRow(spec_.vocab, NAN));
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].logits_out = logits[i].data();
      if (sampled == nullptr) {
        rows[i].target = 0;
      } else {
        rows[i].sampling = &kPlain;
        rows[i].seed = 1;
        rows[i].sequence = static_cast<uint32_t>(i);
        rows[i].position = draws_;
      }
    }
    ++draws_;
    std::vector<LogitResult> results(rows.size());
    StepRows step;
    step.decode = decode.data();
    step.num_decode = static_cast<int32_t>(decode.size());
    step.prompts = prompts.data();
    step.num_prompts = static_cast<int32_t>(prompts.size());
    step.logits = rows.data();
    step.num_logits = static_cast<int32_t>(rows.size());
    step.results = results.data();
    const absl::Status status = backend_->Await(model_->Step(&step));
    EXPECT_TRUE(status.ok()) << status;
    if (sampled != nullptr) sampled->clear();
    for (const LogitResult& result : results) {
      EXPECT_TRUE(result.finite);
      if (sampled != nullptr) sampled->push_back(result.token);
    }
    return logits;
  }

  std::vector<float> State(int32_t slot) {
    std::vector<float> state(MakeStateTable(spec_).bytes() / sizeof(float), NAN);
    const absl::Status status = backend_->Await(backend_->ReadState(slot, state.data(), 0));
    EXPECT_TRUE(status.ok()) << status;
    return state;
  }
  void Zero() {
    for (int32_t slot = 0; slot < kSlots; ++slot) backend_->ZeroState(slot);
  }
  const ModelSpec& spec() const { return spec_; }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  ModelSpec spec_;
  uint64_t draws_ = 0;
};

// Takes every sequence through a slot of its own: the first prompts[i] tokens as a prompt, the
// others one by one, all sequences side by side. Returns the logits after each sequence's last.
std::vector<LogitsOfRow> RunAll(Device* device, const std::vector<Case>& cases,
                                const std::vector<int64_t>& prompts) {
  device->Zero();
  std::vector<LogitsOfRow> last(cases.size());
  std::vector<int64_t> at(cases.size(), 0);
  const auto size = [&](size_t i) { return static_cast<int64_t>(cases[i].ids.size()); };
  while (true) {
    std::vector<DecodeRow> decode;
    std::vector<PromptSegment> segments;
    std::vector<size_t> of_rows, of_segments;
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto slot = static_cast<int32_t>(i);
      if (at[i] == size(i)) continue;
      if (at[i] < prompts[i]) {
        segments.push_back({slot, 0, static_cast<int32_t>(prompts[i]), cases[i].ids.data()});
        of_segments.push_back(i);
      } else {
        decode.push_back({slot, cases[i].ids[at[i]], at[i]});
        of_rows.push_back(i);
      }
    }
    if (decode.empty() && segments.empty()) return last;
    std::vector<LogitsOfRow> logits = device->Step(decode, segments);
    std::vector<size_t> of = of_rows;
    of.insert(of.end(), of_segments.begin(), of_segments.end());
    for (size_t i = 0; i < of.size(); ++i) last[of[i]] = std::move(logits[i]);
    for (const size_t i : of_rows) ++at[i];
    for (const size_t i : of_segments) at[i] = prompts[i];
  }
}

std::vector<float> Flat(const std::vector<LogitsOfRow>& rows) {
  std::vector<float> all;
  for (const LogitsOfRow& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

class CudaGoldenTest : public testing::TestWithParam<GoldenModel> {
 protected:
  void SetUp() override {
    auto cpu = Device::Create(Cpu(), GetParam().dir);
    ASSERT_TRUE(cpu.ok()) << cpu.status();
    cpu_ = *std::move(cpu);
    auto gpu = Device::Create(CudaOrDie(), GetParam().dir);
    if (!CheckSpec(DeviceKind::kCuda, cpu_->spec()).ok()) {
      EXPECT_EQ(gpu.status().code(), absl::StatusCode::kInvalidArgument);
      GTEST_SKIP() << gpu.status();
    }
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    gpu_ = *std::move(gpu);
    cpu_->Zero();
    gpu_->Zero();
  }

  static void TearDownTestSuite() {
    const std::string path = PathFrom("SLUICE_GOLDEN_ERRORS", "");
    if (!path.empty()) std::ofstream(path) << errors_.dump(1) << "\n";
  }

  static double Tolerance() {
    return GetParam().name == "classics_12m" ? kLogitsTolerance : kVariantTolerance;
  }

  static inline nlohmann::json errors_;
  std::unique_ptr<Device> cpu_, gpu_;
};

TEST_P(CudaGoldenTest, Goldens) {
  const std::vector<Case> cases = ReadCases(GetParam().golden);
  ASSERT_LE(cases.size(), static_cast<size_t>(kSlots));
  std::vector<LogitsOfRow> golden;
  for (const Case& c : cases) golden.push_back(c.logits);
  std::mt19937_64 random(1);
  for (const char* path : {"prompt", "decode", "mixed"}) {
    std::vector<int64_t> prompts;
    for (const Case& c : cases) {
      const auto n = static_cast<int64_t>(c.ids.size());
      prompts.push_back(*path == 'p' ? n : *path == 'd' ? 0 : static_cast<int64_t>(random() % n));
    }
    const std::vector<LogitsOfRow> expected = RunAll(cpu_.get(), cases, prompts);
    const std::vector<LogitsOfRow> actual = RunAll(gpu_.get(), cases, prompts);
    const double from_golden = RelativeRms(Flat(actual), Flat(golden));
    const double from_cpu = RelativeRms(Flat(actual), Flat(expected));
    nlohmann::json* errors = &errors_[GetParam().name][path];
    for (size_t i = 0; i < cases.size(); ++i) {
      (*errors)["cases"].push_back(RelativeRms(actual[i], golden[i]));
    }
    (*errors)["golden"] = from_golden;
    (*errors)["cpu"] = from_cpu;
    std::printf("golden %-26s %-6s logits: float64 %.2e  CPU %.2e\n", GetParam().name.c_str(), path,
                from_golden, from_cpu);
    EXPECT_LE(from_cpu, Tolerance()) << path;
  }
}

// Random prompts side by side, cut on the grid, then decoded on beside another prompt.
TEST_P(CudaGoldenTest, LongPrompts) {
  const int64_t vocab = cpu_->spec().vocab;
  std::vector<std::vector<int32_t>> ids;
  for (const int64_t length : {3000, 700, 129, 64, 1}) {
    ids.push_back(RandomTokens(length, vocab, static_cast<uint64_t>(length)));
  }
  const auto segment = [&](int32_t i, int32_t start, int32_t end) {
    return PromptSegment{i, start, end - start, ids[i].data() + start};
  };
  std::vector<LogitsOfRow> expected, actual;
  const auto both = [&](const std::vector<DecodeRow>& decode,
                        const std::vector<PromptSegment>& prompts) {
    for (auto& row : cpu_->Step(decode, prompts, 37)) expected.push_back(std::move(row));
    for (auto& row : gpu_->Step(decode, prompts, 37)) actual.push_back(std::move(row));
  };
  both({}, {segment(0, 0, 512), segment(1, 0, 700), segment(2, 0, 129)});
  both({{1, 3}, {2, 4}}, {segment(0, 512, 2048), segment(3, 0, 64)});
  both({{2, 5}, {3, 6}, {1, 7}}, {segment(4, 0, 1), segment(0, 2048, 3000)});
  for (int32_t i = 0; i < 32; ++i) both({{0, i}, {4, i + 1}, {3, i + 2}, {1, i + 3}}, {});
  const double logits = RelativeRms(Flat(actual), Flat(expected));
  double state = 0.0;
  for (int32_t slot = 0; slot < 5; ++slot) {
    state = std::max(state, RelativeRms(gpu_->State(slot), cpu_->State(slot)));
  }
  errors_[GetParam().name]["long"] = {{"cpu", logits}, {"state", state}};
  std::printf("long   %-26s to 3000 logits: CPU %.2e  worst state %.2e\n", GetParam().name.c_str(),
              logits, state);
  EXPECT_LE(logits, Tolerance());
  EXPECT_LE(state, kStateTolerance);
}

TEST_P(CudaGoldenTest, StateAfter4096Tokens) {
  const std::vector<int32_t> ids = RandomTokens(4096, cpu_->spec().vocab, 9);
  const std::vector<PromptSegment> prompt = {{0, 0, 4096, ids.data()}};
  const auto expected = cpu_->Step({}, prompt, kEvery), actual = gpu_->Step({}, prompt, kEvery);
  const double logits = RelativeRms(Flat(actual), Flat(expected));
  const double state = RelativeRms(gpu_->State(0), cpu_->State(0));
  // The CPU backend is within 1e-4 of float64.
  errors_[GetParam().name]["4096"] = {
      {"cpu", logits}, {"state", state}, {"ids", ids}, {"every", kEvery}, {"logits", expected}};
  std::printf("4096   %-26s logits: CPU %.2e  state %.2e\n", GetParam().name.c_str(), logits,
              state);
  EXPECT_LE(logits, Tolerance());
  EXPECT_LE(state, kStateTolerance);
}

INSTANTIATE_TEST_SUITE_P(AllModels, CudaGoldenTest, testing::ValuesIn(AllModels()),
                         [](const auto& tested) { return tested.param.name; });

// ---- All other families: tests/goldens/MODEL_TYPE/VARIANT ----

std::vector<GoldenModel> Relatives() {
  const std::string goldens = PathFrom("SLUICE_GOLDENS", "tests/goldens");
  std::vector<GoldenModel> models;
  for (const char* family :
       {"bamba", "delta_net", "gated_deltanet", "gla", "hgrn2", "kda", "lightnet", "linear_attn",
        "llama", "mamba2", "mistral", "qwen2", "qwen3", "qwen3_5", "qwen3_5_text", "retnet",
        "simple_gla", "transformer", "transnormer"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(goldens + "/" + family, error)) {
      const std::string dir = entry.path().string();
      models.push_back({std::string(family) + "/" + entry.path().filename().string(), dir,
                        dir + "/golden.json"});
    }
  }
  std::sort(models.begin(), models.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return models;
}

double RootMeanSquare(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// The cost of bf16 on this checkpoint, over its prompts: in the makers' own implementation, the
// smaller of two, if it was run; otherwise in the oracle with weights and activations rounded.
double Bf16Error(const GoldenModel& model, std::string* from) {
  const std::string goldens = PathFrom("SLUICE_GOLDENS", "tests/goldens");
  const nlohmann::json makers =
      nlohmann::json::parse(std::ifstream(goldens + "/makers_bf16.json")).at("errors");
  double least = INFINITY;
  if (makers.contains(model.name)) {
    for (const auto& [maker, errors] : makers.at(model.name).items()) {
      std::vector<double> lengths;
      for (const auto& [length, error] : errors.at("prompt").items()) lengths.push_back(error);
      least = std::min(least, RootMeanSquare(lengths));
    }
    *from = "makers";
    return least;
  }
  std::vector<double> lengths;
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(model.golden));
  for (const auto& json : golden.at("cases")) lengths.push_back(json.at("bf16_error"));
  *from = "oracle";
  return RootMeanSquare(lengths);
}

class CudaRelativesTest : public testing::TestWithParam<GoldenModel> {};

TEST_P(CudaRelativesTest, CostsNoMoreThanBf16) {
  constexpr double kLimit = 1.25;
  auto gpu = Device::Create(CudaOrDie(), GetParam().dir);
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  const std::vector<Case> cases = ReadCases(GetParam().golden);
  ASSERT_LE(cases.size(), static_cast<size_t>(kSlots));
  std::string from;
  const double bf16 = Bf16Error(GetParam(), &from);
  std::mt19937_64 random(1);
  for (const char* path : {"prompt", "decode", "mixed"}) {
    std::vector<int64_t> prompts;
    for (const Case& c : cases) {
      const auto n = static_cast<int64_t>(c.ids.size());
      prompts.push_back(*path == 'p' ? n : *path == 'd' ? 0 : static_cast<int64_t>(random() % n));
    }
    const std::vector<LogitsOfRow> actual = RunAll(gpu->get(), cases, prompts);
    std::vector<double> errors;
    for (size_t i = 0; i < cases.size(); ++i)
      errors.push_back(RelativeRms(actual[i], cases[i].logits));
    const double error = RootMeanSquare(errors);
    std::printf("relative %-28s %-6s %.2e  bf16 of the %s %.2e  ratio %.2f\n",
                GetParam().name.c_str(), path, error, from.c_str(), bf16, error / bf16);
    EXPECT_LE(error, kLimit * bf16) << path;
  }
}

INSTANTIATE_TEST_SUITE_P(AllRelatives, CudaRelativesTest, testing::ValuesIn(Relatives()),
                         [](const auto& tested) {
                           std::string name = tested.param.name;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

class CudaBundledModelTest : public CudaGoldenTest {};

// On text that the model wrote itself on the CPU, taken in as a prompt and token by token.
TEST_P(CudaBundledModelTest, ChoosesTheCpusTokens) {
  constexpr int32_t kLength = 400;
  std::vector<Case> texts = ReadCases(GetParam().golden);
  std::vector<DecodeRow> decode;
  std::vector<PromptSegment> prompts;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto slot = static_cast<int32_t>(i);
    prompts.push_back({slot, 0, static_cast<int32_t>(texts[i].ids.size()), texts[i].ids.data()});
    decode.push_back({slot, 0});
  }
  std::vector<int32_t> sampled;
  cpu_->Step({}, prompts, kMaxRows, &sampled);
  for (int32_t n = 0; n < kLength; ++n) {
    for (size_t i = 0; i < texts.size(); ++i) {
      texts[i].ids.push_back(sampled[i]);
      decode[i].token = sampled[i];
    }
    cpu_->Step(decode, {}, kMaxRows, &sampled);
  }

  int64_t clear = 0, close = 0, other = 0;
  const auto compare = [&](const std::vector<LogitsOfRow>& expected,
                           const std::vector<LogitsOfRow>& actual) {
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto best = std::max_element(expected[i].begin(), expected[i].end());
      float second = -INFINITY;
      for (auto it = expected[i].begin(); it != expected[i].end(); ++it) {
        if (it != best) second = std::max(second, *it);
      }
      const bool same = std::max_element(actual[i].begin(), actual[i].end()) - actual[i].begin() ==
                        best - expected[i].begin();
      if (*best - second > kClearMargin) {
        ++clear;
        EXPECT_TRUE(same) << "row " << i << ", margin " << *best - second;
      } else {
        ++close;
        other += !same;
      }
    }
  };
  cpu_->Zero();
  for (size_t i = 0; i < texts.size(); ++i) {
    prompts[i].length = static_cast<int32_t>(texts[i].ids.size());
    prompts[i].tokens = texts[i].ids.data();
  }
  const auto expected = cpu_->Step({}, prompts, 1);
  const auto actual = gpu_->Step({}, prompts, 1);
  const double from_cpu = RelativeRms(Flat(actual), Flat(expected));
  compare(expected, actual);
  cpu_->Zero();
  gpu_->Zero();
  for (int32_t n = 0; n < kLength; ++n) {
    for (size_t i = 0; i < texts.size(); ++i) decode[i].token = texts[i].ids[n];
    compare(cpu_->Step(decode, {}), gpu_->Step(decode, {}));
  }
  std::printf("argmax %-26s %lld clear choices, %lld of %lld close ones differ; logits: CPU %.2e\n",
              GetParam().name.c_str(), static_cast<long long>(clear), static_cast<long long>(other),
              static_cast<long long>(close), from_cpu);
  errors_[GetParam().name]["text"] = {{"cpu", from_cpu}};
  EXPECT_LE(from_cpu, kLogitsTolerance);
}

INSTANTIATE_TEST_SUITE_P(Bundled, CudaBundledModelTest, testing::Values(AllModels().back()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sluice
