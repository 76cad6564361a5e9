// The whole model against float64: every checkpoint under tests/goldens, from the file to logits,
// log-probabilities and greedy continuations, for prompts in chunks, token by token, and random
// mixes of the two. All cases of a model run side by side in one batch, each in its own slot.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/families.h"
#include "engine/model.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "nlohmann/json.hpp"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

constexpr double kLogitsTolerance = 1e-4;   // root mean square of the error over that of the logits
constexpr double kLogprobTolerance = 2e-4;  // absolute; the goldens have six digits
constexpr float kClearMargin = 1e-3f;       // below it two tokens are as good as each other
constexpr int32_t kMaxRows = 4096;

struct Case {
  std::vector<int32_t> ids;
  std::vector<double> logits;           // after the last of ids
  std::vector<double> prompt_logprobs;  // [i] of ids[i + 1]; may be empty
  std::vector<int32_t> greedy;          // may be empty
  std::vector<float> margin;            // of each of greedy
};

struct GoldenModel {
  std::string name;
  std::string dir;
  std::string golden;
};

enum class Path { kChunks, kTokens, kMixed };

// gla's variants, and those of the other families under the name of their model_type.
std::vector<GoldenModel> AllModels() {
  std::vector<GoldenModel> models;
  const auto add = [&](const std::string& folder, const std::string& prefix) {
    for (const auto& entry : std::filesystem::directory_iterator(SourcePath(folder))) {
      const std::string dir = entry.path().string();
      models.push_back({prefix + entry.path().filename().string(), dir, dir + "/golden.json"});
    }
  };
  add("tests/goldens/variants", "");
  for (const Family* family : Families()) {
    const std::string folder = absl::StrCat("tests/goldens/", family->model_type);
    if (std::filesystem::is_directory(SourcePath(folder))) {
      add(folder, absl::StrCat(family->model_type, "_"));
    }
  }
  std::sort(models.begin(), models.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  models.push_back({"classics_12m", SourcePath("deploy/models/classics-12m"),
                    SourcePath("tests/goldens/classics-12m.json")});
  return models;
}

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(path));
  for (const auto& json : golden.at("cases")) {
    Case c;
    json.at("ids").get_to(c.ids);
    json.at("logits").get_to(c.logits);
    if (json.contains("prompt_logprobs")) json.at("prompt_logprobs").get_to(c.prompt_logprobs);
    if (json.contains("greedy")) {
      json.at("greedy").get_to(c.greedy);
      json.at("margin").get_to(c.margin);
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

double RelativeError(const std::vector<float>& logits, const std::vector<double>& expected) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (logits[i] - expected[i]) * (logits[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

// One case on its way through the model, in the slot of its number.
class Sequence {
 public:
  // `prompt`: how many of the ids go in as prompt segments; the others are decode rows.
  Sequence(int32_t slot, const Case* golden, int64_t prompt)
      : slot_(slot), golden_(golden), prompt_(prompt) {
    logits_.resize(golden->logits.size());
  }

  bool done() const {
    // The last greedy token is compared, never fed.
    const size_t fed = golden_->ids.size() + std::max<size_t>(golden_->greedy.size(), 1) - 1;
    return position_ >= static_cast<int64_t>(fed);
  }
  bool wants_prompt() const { return position_ < prompt_; }

  DecodeRow Decode() {
    taken_ = 1;
    const auto n = static_cast<int64_t>(golden_->ids.size());
    if (position_ < n) return {slot_, golden_->ids[position_], position_};
    const int32_t token = golden_->greedy[position_ - n];
    return {slot_, token == last_sampled_ ? kLastSampled : token, position_};
  }

  // At most `chunks` times the grid.
  PromptSegment Prompt(int64_t chunks, int32_t grid) {
    taken_ = std::min(prompt_ - position_, chunks * grid);
    return {slot_, position_, static_cast<int32_t>(taken_), golden_->ids.data() + position_,
            position_};
  }

  // Adds the logits that are wanted of the rows just taken, the first of which is `row` of the
  // step.
  void AddLogitRows(int32_t row, std::vector<LogitRow>* rows) {
    first_result_ = rows->size();
    const auto n = static_cast<int64_t>(golden_->ids.size());
    for (int64_t p = position_; p < position_ + taken_; ++p, ++row) {
      LogitRow want;
      want.row = row;
      want.slot = slot_;
      want.alternatives = 0;
      if (p + 1 < n) {
        want.target = golden_->ids[p + 1];
      } else {
        want.sampling = &kGreedy;
        want.position = static_cast<uint64_t>(p + 1);
        if (p + 1 == n) want.logits_out = logits_.data();
      }
      rows->push_back(want);
    }
  }

  void Take(const std::vector<LogitResult>& results) {
    const auto n = static_cast<int64_t>(golden_->ids.size());
    for (int64_t i = 0; i < taken_; ++i) {
      const LogitResult& result = results[first_result_ + i];
      const int64_t next = position_ + i + 1;
      EXPECT_TRUE(result.finite);
      if (next < n) {
        CheckLogprob(next - 1, result);
      } else {
        CheckGreedy(next - n, result.token);
      }
    }
    position_ += taken_;
  }

  double logits_error() const { return RelativeError(logits_, golden_->logits); }
  double logprob_error() const { return logprob_error_; }
  int64_t greedy_tokens() const { return greedy_tokens_; }

 private:
  static constexpr SamplingConfig kGreedy = {.temperature = 0.0f};

  void CheckLogprob(int64_t i, const LogitResult& result) {
    EXPECT_EQ(result.token, golden_->ids[i + 1]);
    if (golden_->prompt_logprobs.empty()) return;
    logprob_error_ =
        std::max(logprob_error_, std::abs(result.logprob - golden_->prompt_logprobs[i]));
  }

  void CheckGreedy(int64_t i, int32_t token) {
    last_sampled_ = token;
    if (i >= static_cast<int64_t>(golden_->greedy.size())) return;
    if (golden_->margin[i] <= kClearMargin) return;
    EXPECT_EQ(token, golden_->greedy[i])
        << "token " << i << " of the continuation, margin " << golden_->margin[i];
    ++greedy_tokens_;
  }

  const int32_t slot_;
  const Case* const golden_;
  const int64_t prompt_;
  int64_t position_ = 0;
  int64_t taken_ = 0;        // tokens in the step being run
  size_t first_result_ = 0;  // of those tokens
  int32_t last_sampled_ = -1;
  std::vector<float> logits_;
  double logprob_error_ = 0;
  int64_t greedy_tokens_ = 0;
};

class ModelGoldenTest : public testing::TestWithParam<GoldenModel> {
 protected:
  void SetUp() override {
    auto checkpoint = Checkpoint::Open(GetParam().dir);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    cases_ = ReadCases(GetParam().golden);
    ASSERT_FALSE(cases_.empty());
    size_t rows = 0;
    for (const Case& c : cases_) rows += c.ids.size();
    ASSERT_LE(rows, static_cast<size_t>(kMaxRows));
    backend_ = MakeCpuBackend({.threads = 2});
    std::string fingerprint;
    auto weights = (*checkpoint)->Load(backend_.get(), {}, &fingerprint);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ModelSpec spec = (*checkpoint)->config().spec;
    spec.first_unsampled = 0;  // a golden goes on with the best row, also one of padding
    const auto slots = static_cast<int32_t>(cases_.size());
    backend_->SetAttentionRoom({kMaxRows, slots * PagesFor(kMaxRows)});
    ASSERT_TRUE(backend_->AllocateStates(spec, slots, 1, kMaxRows).ok());
    auto model = Model::Create(backend_.get(), spec, std::move(*weights), kMaxRows);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = std::move(*model);
  }

  void Run(Path path, uint64_t seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 rng(seed);
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < cases_.size(); ++i) {
      const auto n = static_cast<int64_t>(cases_[i].ids.size());
      int64_t prompt = path == Path::kChunks ? n : 0;
      if (path == Path::kMixed) prompt = static_cast<int64_t>(rng() % (n + 1));
      sequences.emplace_back(static_cast<int32_t>(i), &cases_[i], prompt);
      backend_->ZeroState(static_cast<int32_t>(i));
    }
    while (Step(path, &rng, &sequences)) {
      if (HasFatalFailure()) return;
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_LE(sequences[i].logits_error(), kLogitsTolerance) << "case " << i;
      EXPECT_LE(sequences[i].logprob_error(), kLogprobTolerance) << "case " << i;
      worst_logits_ = std::max(worst_logits_, sequences[i].logits_error());
      worst_logprob_ = std::max(worst_logprob_, sequences[i].logprob_error());
      greedy_tokens_ += sequences[i].greedy_tokens();
    }
  }

  void Print(const char* path) const {
    std::printf("%-24s %-7s logits %.2e  log-probabilities %.2e  %lld greedy tokens\n",
                GetParam().name.c_str(), path, worst_logits_, worst_logprob_,
                static_cast<long long>(greedy_tokens_));
  }

 private:
  // One step over those of the sequences that take part; false when all were done.
  bool Step(Path path, std::mt19937_64* rng, std::vector<Sequence>* sequences) {
    std::vector<Sequence*> decoding;
    std::vector<Sequence*> prompting;
    bool any = false;
    for (Sequence& sequence : *sequences) {
      if (sequence.done()) continue;
      any = true;
      if (path == Path::kMixed && (*rng)() % 4 == 0) continue;
      (sequence.wants_prompt() ? prompting : decoding).push_back(&sequence);
    }
    std::shuffle(decoding.begin(), decoding.end(), *rng);
    std::shuffle(prompting.begin(), prompting.end(), *rng);

    std::vector<DecodeRow> decode;
    std::vector<PromptSegment> prompts;
    std::vector<LogitRow> logits;
    int32_t row = 0;
    for (Sequence* sequence : decoding) {
      decode.push_back(sequence->Decode());
      sequence->AddLogitRows(row++, &logits);
    }
    for (Sequence* sequence : prompting) {
      const int64_t chunks =
          path == Path::kMixed ? 1 + static_cast<int64_t>((*rng)() % 3) : kMaxRows;
      prompts.push_back(sequence->Prompt(chunks, backend_->info().prompt_grid));
      sequence->AddLogitRows(row, &logits);
      row += prompts.back().length;
    }
    if (row == 0) return any;
    std::vector<LogitResult> results(logits.size());
    const StepRows rows = {decode.data(),  static_cast<int32_t>(decode.size()),
                           prompts.data(), static_cast<int32_t>(prompts.size()),
                           logits.data(),  static_cast<int32_t>(logits.size()),
                           results.data()};
    EXPECT_TRUE(backend_->Await(model_->Step(&rows)).ok());
    for (Sequence* sequence : decoding) sequence->Take(results);
    for (Sequence* sequence : prompting) sequence->Take(results);
    return any;
  }

  std::vector<Case> cases_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  double worst_logits_ = 0;
  double worst_logprob_ = 0;
  int64_t greedy_tokens_ = 0;
};

TEST_P(ModelGoldenTest, Chunks) {
  Run(Path::kChunks, 0);
  Print("chunks");
}

TEST_P(ModelGoldenTest, Tokens) {
  Run(Path::kTokens, 0);
  Print("tokens");
}

TEST_P(ModelGoldenTest, Mixed) {
  for (uint64_t seed = 1; seed <= 4; ++seed) Run(Path::kMixed, seed);
  Print("mixed");
}

INSTANTIATE_TEST_SUITE_P(AllModels, ModelGoldenTest, testing::ValuesIn(AllModels()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace sluice
