// Compares gla's results on the CPU to the bit, and the names of its checkpoints, with commit
// 71a9137: for each instruction set that the CPU runs, lower ones forced, hashes of the logits of
// every golden checkpoint by decode, by prompt, and by several cuts.
//
// The records lie in tests/goldens/frozen. tests/goldens/frozen/record.sh builds this very file at
// 71a9137 and lets it write what is missing: so it must compile there, too.
#include "kernels/cpu/simd_targets.h"
// It comes first: it says which targets Highway compiles.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/model.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gemm.h"
#include "tests/fakes/test_paths.h"
#include "xxhash.h"

namespace sluice {
namespace {

constexpr int32_t kMaxRows = 256;
constexpr int32_t kSlots = 2;
constexpr SamplingConfig kGreedy = {.temperature = 0.0f};
constexpr SamplingConfig kDrawn = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f};

// Line by line: a key of several words, and what was recorded for it.
using Record = std::map<std::string, std::string>;

// The folder that records are written to; if empty, they are compared.
std::string RecordDir() {
  const char* dir = std::getenv("SLUICE_RECORD_FROZEN");
  return dir == nullptr ? "" : dir;
}

std::string RecordPath(const std::string& name) {
  const std::string dir = RecordDir().empty() ? SourcePath("tests/goldens/frozen") : RecordDir();
  return absl::StrCat(dir, "/", name, ".txt");
}

Record ReadRecord(const std::string& name) {
  Record record;
  std::ifstream file(RecordPath(name));
  std::string line;
  while (std::getline(file, line)) {
    const size_t space = line.rfind(' ');
    if (space != std::string::npos) record[line.substr(0, space)] = line.substr(space + 1);
  }
  return record;
}

// Compares with the record of this name, or writes it where there is none and one is wanted.
void CheckRecord(const std::string& name, const Record& seen) {
  if (!RecordDir().empty()) {
    if (std::filesystem::exists(RecordPath(name))) return;
    std::ofstream file(RecordPath(name));
    for (const auto& [key, value] : seen) file << key << ' ' << value << '\n';
    ASSERT_TRUE(file.good()) << RecordPath(name);
    return;
  }
  const Record frozen = ReadRecord(name);
  ASSERT_FALSE(frozen.empty()) << RecordPath(name)
                               << " is missing: tests/goldens/frozen/record.sh makes it";
  EXPECT_EQ(seen, frozen) << RecordPath(name);
}

struct NamedModel {
  std::string name;
  std::string dir;
};

std::vector<NamedModel> AllModels() {
  std::vector<NamedModel> models;
  for (const auto& entry :
       std::filesystem::directory_iterator(SourcePath("tests/goldens/variants"))) {
    models.push_back({entry.path().filename().string(), entry.path().string()});
  }
  std::sort(models.begin(), models.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  models.push_back({"classics-12m", SourcePath("deploy/models/classics-12m")});
  return models;
}

// The description of a model: its type has changed since 71a9137, its use has not.
template <typename Config>
const auto& Described(const Config& config) {
  if constexpr (requires { config.spec; }) {
    return config.spec;
  } else {
    return config.shape;
  }
}

// At 71a9137 rows carried no position.
template <typename Row>
void SetPosition(int64_t position, Row* row) {
  if constexpr (requires { row->position; }) row->position = position;
}

// A loaded model with two slots, and the hash of everything that its steps have given.
class Runner {
 public:
  explicit Runner(const std::string& dir) : backend_(MakeCpuBackend({.threads = 2})) {
    auto checkpoint = Checkpoint::Open(dir);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (!checkpoint.ok()) return;
    auto weights = (*checkpoint)->Load(backend_.get(), {}, &fingerprint_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    if (!weights.ok()) return;
    const auto& described = Described((*checkpoint)->config());
    vocab_ = static_cast<int32_t>(described.vocab);
    EXPECT_TRUE(backend_->AllocateStates(described, kSlots, 1, kMaxRows).ok());
    auto model = Model::Create(backend_.get(), described, std::move(*weights), kMaxRows);
    EXPECT_TRUE(model.ok()) << model.status();
    if (model.ok()) model_ = std::move(*model);
  }

  bool ok() const { return model_ != nullptr; }
  const std::string& fingerprint() const { return fingerprint_; }

  void Begin() {
    given_.clear();
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      backend_->ZeroState(slot);
      positions_[slot] = 0;
    }
    Clear();
  }

  // The sequence in each slot has tokens of its own.
  int32_t TokenAt(int32_t slot, int64_t position) const {
    return static_cast<int32_t>((position * 7919 + slot * 104729 + 13) % vocab_);
  }

  // A row of the next step: decode rows come before prompts.
  void Decode(int32_t slot, bool last_sampled = false) {
    DecodeRow row;
    row.slot = slot;
    if (!last_sampled) row.token = TokenAt(slot, positions_[slot]);
    SetPosition(positions_[slot]++, &row);
    decode_.push_back(row);
    WantLogits(slot, &kDrawn);
  }

  // `start` counts from the beginning of a call.
  void Prompt(int32_t slot, int64_t start, int32_t length) {
    PromptSegment segment;
    segment.slot = slot;
    segment.start = start;
    segment.length = length;
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < length; ++i) tokens.push_back(TokenAt(slot, positions_[slot] + i));
    prompt_tokens_.push_back(std::move(tokens));
    segment.tokens = prompt_tokens_.back().data();
    SetPosition(positions_[slot], &segment);
    for (int32_t i = 0; i < length; ++i) {
      ++positions_[slot];
      WantLogits(slot, i + 1 == length ? &kGreedy : nullptr);
    }
    prompts_.push_back(segment);
  }

  void Step() {
    std::vector<float> logits(logit_rows_.size() * vocab_);
    for (size_t i = 0; i < logit_rows_.size(); ++i) {
      logit_rows_[i].logits_out = logits.data() + i * vocab_;
    }
    std::vector<LogitResult> results(logit_rows_.size());
    const StepRows rows = {decode_.data(),     static_cast<int32_t>(decode_.size()),
                           prompts_.data(),    static_cast<int32_t>(prompts_.size()),
                           logit_rows_.data(), static_cast<int32_t>(logit_rows_.size()),
                           results.data()};
    EXPECT_TRUE(backend_->Await(model_->Step(&rows)).ok());
    Give(logits.data(), logits.size() * sizeof(float));
    for (const LogitResult& result : results) {
      Give(&result.token, sizeof(result.token));
      Give(&result.logprob, sizeof(result.logprob));
    }
    Clear();
  }

  std::string Hash() const {
    const XXH128_hash_t hash = XXH3_128bits(given_.data(), given_.size());
    return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16),
                        absl::Hex(hash.low64, absl::kZeroPad16));
  }

 private:
  void Give(const void* bytes, size_t size) {
    given_.append(static_cast<const char*>(bytes), size);
  }

  void Clear() {
    decode_.clear();
    prompts_.clear();
    prompt_tokens_.clear();
    logit_rows_.clear();
  }

  void WantLogits(int32_t slot, const SamplingConfig* sampling) {
    LogitRow row;
    row.row = static_cast<int32_t>(logit_rows_.size());
    row.slot = slot;
    row.alternatives = 0;
    row.seed = 5;
    row.position = static_cast<uint64_t>(positions_[slot]);
    row.sampling = sampling;
    if (sampling == nullptr) row.target = TokenAt(slot, positions_[slot]);
    logit_rows_.push_back(row);
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::string fingerprint_;
  int32_t vocab_ = 0;
  int64_t positions_[kSlots] = {};
  std::vector<DecodeRow> decode_;
  std::vector<PromptSegment> prompts_;
  std::vector<std::vector<int32_t>> prompt_tokens_;
  std::vector<LogitRow> logit_rows_;
  std::string given_;  // the bytes of all results since Begin
};

// Every row's logits, in steps of one kind and of mixed ones.
void RunAll(const std::string& name, Runner* runner, Record* seen) {
  const auto keep = [&](const char* path) {
    (*seen)[absl::StrCat(name, " ", path)] = runner->Hash();
  };
  runner->Begin();
  for (int i = 0; i < 70; ++i) {
    runner->Decode(0, /*last_sampled=*/i > 60);
    runner->Step();
  }
  keep("decode");

  runner->Begin();
  runner->Prompt(1, 0, 201);
  runner->Step();
  keep("prompt");

  runner->Begin();
  runner->Prompt(0, 0, 64);
  runner->Step();
  runner->Prompt(0, 64, 128);
  runner->Prompt(1, 0, 64);
  runner->Step();
  runner->Prompt(0, 192, 9);
  runner->Step();
  keep("cuts");

  // Calls that go on where earlier ones ended, beside another sequence.
  runner->Begin();
  runner->Prompt(0, 0, 71);
  runner->Step();
  for (int i = 0; i < 5; ++i) {
    runner->Decode(1);
    runner->Decode(0, /*last_sampled=*/i > 0);
    runner->Step();
  }
  runner->Decode(1);
  runner->Prompt(0, 0, 64);
  runner->Step();
  runner->Decode(1);
  runner->Prompt(0, 64, 66);
  runner->Step();
  runner->Decode(0);
  runner->Decode(1);
  runner->Step();
  keep("calls");
}

class FrozenBitsTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(FrozenBitsTest, Logits) {
  const std::string target = SimdName();
  Record seen;
  for (const NamedModel& model : AllModels()) {
    Runner runner(model.dir);
    ASSERT_TRUE(runner.ok()) << model.name;
    RunAll(model.name, &runner, &seen);
  }
  CheckRecord(target, seen);
}

INSTANTIATE_TEST_SUITE_P(EveryTarget, FrozenBitsTest,
                         testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& param) {
                           hwy::SetSupportedTargetsForTest(param.param);
                           const std::string name = SimdName();
                           hwy::SetSupportedTargetsForTest(0);
                           return name;
                         });

TEST(FrozenFingerprintTest, EveryCheckpoint) {
  Record seen;
  for (const NamedModel& model : AllModels()) {
    Runner runner(model.dir);
    ASSERT_TRUE(runner.ok()) << model.name;
    seen[model.name] = runner.fingerprint();
  }
  CheckRecord("fingerprints", seen);
}

}  // namespace
}  // namespace sluice
