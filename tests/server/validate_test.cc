#include "server/validate.h"

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/status.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int kIntMax = std::numeric_limits<int32_t>::max();
constexpr int kIntMin = std::numeric_limits<int32_t>::min();

const Tokenizer& TestTokenizer() {
  static const auto* tokenizer = new auto(Tokenizer::Load(
      SourcePath("deploy/models/classics-12m"), {.vocab_size = 4096, .bos_id = 1, .eos_id = 2}));
  return ***tokenizer;
}

RequestBounds Bounds() {
  RequestBounds bounds;
  bounds.model_name = "m";
  bounds.vocab_size = 4096;
  return bounds;
}

v1::GenerateRequest Valid() {
  v1::GenerateRequest message;
  message.mutable_tokens()->add_ids(1);
  return message;
}

absl::StatusOr<Request> Parse(const v1::GenerateRequest& message,
                              const RequestBounds& bounds = Bounds()) {
  return ParseGenerate(message, bounds, TestTokenizer(), 99);
}

std::vector<std::string> Fields(const absl::Status& status) {
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  std::vector<std::string> fields;
  const google::rpc::Status sent = ToRpcStatus(status);
  for (const google::protobuf::Any& detail : sent.details()) {
    google::rpc::BadRequest bad;
    if (!detail.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations()) fields.push_back(violation.field());
  }
  return fields;
}

TEST(ValidateGenerate, DefaultsAreTheProtos) {
  const absl::StatusOr<Request> request = Parse(Valid());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->kind, RequestKind::kGenerate);
  EXPECT_EQ(request->sampling.temperature, 1.0f);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(request->stop.max_new_tokens, 256);
  EXPECT_EQ(request->stop.time_limit, absl::InfiniteDuration());
  EXPECT_TRUE(request->output.text);
  EXPECT_EQ(request->output.logprobs, -1);
  EXPECT_EQ(request->output.prompt_logprobs, -1);
  EXPECT_EQ(request->n, 1);
  EXPECT_EQ(request->seed, 99u);
}

TEST(ValidateGenerate, ZeroMeansZero) {
  v1::GenerateRequest message = Valid();
  message.mutable_sampling()->set_temperature(0);
  message.mutable_sampling()->set_seed(0);
  message.mutable_stop()->set_max_new_tokens(0);
  message.mutable_output()->set_logprobs(0);
  message.mutable_output()->set_prompt_logprobs(true);
  const absl::StatusOr<Request> request = Parse(message);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_EQ(request->seed, 0u);
  EXPECT_EQ(request->stop.max_new_tokens, 0);
  EXPECT_EQ(request->output.logprobs, 0);
  EXPECT_EQ(request->output.prompt_logprobs, 0);
}

// Every class of float in every field: accepted as it is or refused by name, never changed.
TEST(ValidateGenerate, FloatClassesTimesFields) {
  struct Field {
    const char* name;
    void (v1::SamplingParams::*set)(float);
    float min, max;
    bool open;
    float SamplingConfig::*out;
  };
  const Field fields[] = {
      {"temperature", &v1::SamplingParams::set_temperature, 0, 100, false,
       &SamplingConfig::temperature},
      {"top_p", &v1::SamplingParams::set_top_p, 0, 1, true, &SamplingConfig::top_p},
      {"min_p", &v1::SamplingParams::set_min_p, 0, 1, false, &SamplingConfig::min_p},
      {"typical_p", &v1::SamplingParams::set_typical_p, 0, 1, true, &SamplingConfig::typical_p},
      {"repetition_penalty", &v1::SamplingParams::set_repetition_penalty, 0, 100, true,
       &SamplingConfig::repetition_penalty},
      {"presence_penalty", &v1::SamplingParams::set_presence_penalty, -100, 100, false,
       &SamplingConfig::presence_penalty},
      {"frequency_penalty", &v1::SamplingParams::set_frequency_penalty, -100, 100, false,
       &SamplingConfig::frequency_penalty},
  };
  std::vector<float> values = {std::nanf(""), -std::nanf("1"),
                               kInf,          -kInf,
                               0.0f,          -0.0f,
                               1e-45f,        -1e-45f,
                               1e-38f,        1e38f,
                               -1e38f,        std::numeric_limits<float>::max(),
                               0.5f,          1.0f};
  for (const float edge : {-100.0f, 0.0f, 1.0f, 100.0f}) {
    for (const float value : {std::nextafter(edge, -kInf), edge, std::nextafter(edge, kInf)})
      values.push_back(value);
  }
  for (const Field& field : fields) {
    for (const float value : values) {
      v1::GenerateRequest message = Valid();
      (message.mutable_sampling()->*field.set)(value);
      const bool legal = std::isfinite(value) && value <= field.max &&
                         (field.open ? value > field.min : value >= field.min);
      const absl::StatusOr<Request> request = Parse(message);
      ASSERT_EQ(request.ok(), legal) << field.name << " " << value;
      if (legal) {
        EXPECT_EQ(request->sampling.*field.out, value);
      } else {
        EXPECT_THAT(Fields(request.status()), ElementsAre(absl::StrCat("sampling.", field.name)));
      }
    }
  }
}

TEST(ValidateGenerate, MinTokensNeedATokenThatDoesNotEndTheAnswer) {
  RequestBounds bounds = Bounds();
  bounds.vocab_size = 64;
  bounds.eos_token_ids = {2};
  v1::GenerateRequest message = Valid();
  message.mutable_stop()->set_min_new_tokens(1);
  for (int id = 0; id < 64; ++id) {
    if (id != 2) message.mutable_stop()->add_token_ids(id);
  }
  EXPECT_THAT(Fields(Parse(message, bounds).status()), ElementsAre("stop.min_new_tokens"));
  message.mutable_stop()->set_ignore_eos(true);
  EXPECT_TRUE(Parse(message, bounds).ok()) << "EOS is left";
  message.mutable_stop()->add_token_ids(2);
  EXPECT_THAT(Fields(Parse(message, bounds).status()), ElementsAre("stop.min_new_tokens"));
  message.mutable_stop()->set_min_new_tokens(0);
  EXPECT_TRUE(Parse(message, bounds).ok());
}

// Every whole number at its bounds, just outside, and far outside.
TEST(ValidateGenerate, IntegersTimesFields) {
  struct Field {
    const char* name;
    std::function<void(v1::GenerateRequest*, int32_t)> set;
    int32_t min, max;
  };
  const RequestBounds bounds = Bounds();
  const Field fields[] = {
      {"sampling.top_k", [](auto* m, int32_t v) { m->mutable_sampling()->set_top_k(v); }, 0, 4096},
      {"stop.max_new_tokens", [](auto* m, int32_t v) { m->mutable_stop()->set_max_new_tokens(v); },
       0, 1048576},
      {"stop.min_new_tokens", [](auto* m, int32_t v) { m->mutable_stop()->set_min_new_tokens(v); },
       0, 256},
      {"output.logprobs", [](auto* m, int32_t v) { m->mutable_output()->set_logprobs(v); }, 0, 20},
      {"n", [](auto* m, int32_t v) { m->set_n(v); }, 1, 64},
      {"priority", [](auto* m, int32_t v) { m->set_priority(v); }, -100, 100},
      {"stop.token_ids[0]", [](auto* m, int32_t v) { m->mutable_stop()->add_token_ids(v); }, 0,
       4095},
      {"tokens.ids[0]", [](auto* m, int32_t v) { m->mutable_tokens()->set_ids(0, v); }, 0, 4095},
  };
  for (const Field& field : fields) {
    for (const int32_t value : {field.min - 1, field.min, field.min + 1, field.max - 1, field.max,
                                field.max + 1, kIntMax, kIntMin}) {
      v1::GenerateRequest message = Valid();
      field.set(&message, value);
      const absl::StatusOr<Request> request = Parse(message, bounds);
      ASSERT_EQ(request.ok(), value >= field.min && value <= field.max)
          << field.name << " " << value;
      if (!request.ok()) {
        EXPECT_THAT(Fields(request.status()), ElementsAre(field.name));
      }
    }
  }
}

TEST(ValidateGenerate, CountsAndLengthsAtTheirLimits) {
  for (const int count : {15, 16, 17}) {
    v1::GenerateRequest message = Valid();
    for (int i = 0; i < count; ++i) message.mutable_stop()->add_strings("s");
    EXPECT_EQ(Parse(message).ok(), count <= 16) << count;
  }
  for (const int size : {0, 1, 255, 256, 257}) {
    v1::GenerateRequest message = Valid();
    message.mutable_stop()->add_strings("ok");
    message.mutable_stop()->add_strings(std::string(size, 's'));
    const absl::StatusOr<Request> request = Parse(message);
    ASSERT_EQ(request.ok(), size >= 1 && size <= 256) << size;
    if (!request.ok()) {
      EXPECT_THAT(Fields(request.status()), ElementsAre("stop.strings[1]"));
    }
  }
  for (const int count : {63, 64, 65}) {
    v1::GenerateRequest message = Valid();
    for (int i = 0; i < count; ++i) message.mutable_stop()->add_token_ids(i);
    EXPECT_EQ(Parse(message).ok(), count <= 64) << count;
  }
  for (const int count : {1023, 1024, 1025}) {
    v1::GenerateRequest message = Valid();
    for (int i = 0; i < count; ++i) (*message.mutable_sampling()->mutable_logit_bias())[i] = 1;
    EXPECT_EQ(Parse(message).ok(), count <= 1024) << count;
  }
  for (const int size : {127, 128, 129}) {
    v1::GenerateRequest message = Valid();
    message.set_request_id(std::string(size, 'i'));
    EXPECT_EQ(Parse(message).ok(), size <= 128) << size;
  }
  RequestBounds bounds = Bounds();
  bounds.max_prompt_tokens = 10;
  for (const int count : {0, 1, 9, 10, 11}) {
    v1::GenerateRequest message;
    message.mutable_tokens();
    for (int i = 0; i < count; ++i) message.mutable_tokens()->add_ids(5);
    const absl::StatusOr<Request> request = Parse(message, bounds);
    ASSERT_EQ(request.ok(), count >= 1 && count <= 10) << count;
    if (!request.ok()) {
      EXPECT_THAT(Fields(request.status()), ElementsAre("tokens.ids"));
    }
  }
}

TEST(ValidateGenerate, LogitBiasIsCheckedAndSorted) {
  v1::GenerateRequest message = Valid();
  auto& bias = *message.mutable_sampling()->mutable_logit_bias();
  bias[30] = -100;
  bias[4] = 100;
  const absl::StatusOr<Request> request = Parse(message);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->logit_bias.size(), 2u);
  EXPECT_EQ(request->logit_bias[0].token, 4);
  EXPECT_EQ(request->logit_bias[1].bias, -100.0f);
  bias[7] = kInf;
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("sampling.logit_bias[7]"));
  bias.erase(7);
  bias[4096] = 0;
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("sampling.logit_bias"));
}

TEST(ValidateGenerate, TimeLimits) {
  const auto with = [](int64_t seconds, int32_t nanos) {
    v1::GenerateRequest message = Valid();
    message.mutable_stop()->mutable_time_limit()->set_seconds(seconds);
    message.mutable_stop()->mutable_time_limit()->set_nanos(nanos);
    return Parse(message);
  };
  EXPECT_EQ(with(1, 500000000)->stop.time_limit, absl::Milliseconds(1500));
  EXPECT_EQ(with(0, 1)->stop.time_limit, absl::Nanoseconds(1));
  EXPECT_TRUE(with(315576000000, 0).ok());
  for (const auto& [seconds, nanos] :
       std::vector<std::pair<int64_t, int32_t>>{{0, 0},
                                                {-1, 0},
                                                {1, -1},
                                                {0, 1000000000},
                                                {315576000001, 0},
                                                {std::numeric_limits<int64_t>::min(), kIntMin},
                                                {std::numeric_limits<int64_t>::max(), kIntMax}}) {
    EXPECT_THAT(Fields(with(seconds, nanos).status()), ElementsAre("stop.time_limit"))
        << seconds << " " << nanos;
  }
}

TEST(ValidateGenerate, APromptIsRequired) {
  v1::GenerateRequest message;
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("prompt"));
  message.mutable_tokens();
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("tokens.ids"));
  message.set_text("");
  message.set_add_special_tokens(false);
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("text"));
}

TEST(ValidateGenerate, SpecialTokensAreForText) {
  v1::GenerateRequest message;
  message.set_text("Once");
  const std::vector<int32_t> with = Parse(message)->prompt;
  message.set_add_special_tokens(false);
  const std::vector<int32_t> without = Parse(message)->prompt;
  EXPECT_EQ(with.size(), without.size() + 1);
  EXPECT_EQ(with.front(), 1);
  message = Valid();
  message.set_add_special_tokens(true);
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("add_special_tokens"));
  message.set_add_special_tokens(false);
  EXPECT_TRUE(Parse(message).ok());
}

TEST(ValidateGenerate, AllThatIsWrongIsNamed) {
  v1::GenerateRequest message = Valid();
  message.set_request_id("a\n");
  message.set_commit_policy(static_cast<v1::CommitPolicy>(77));
  message.set_on_conflict(static_cast<v1::ConflictPolicy>(-1));
  message.mutable_sampling()->set_top_p(0);
  EXPECT_THAT(Fields(Parse(message).status()),
              ElementsAre("request_id", "commit_policy", "on_conflict", "sampling.top_p"));
}

TEST(ValidateGenerate, OtherModelsAreNotFound) {
  v1::GenerateRequest message = Valid();
  message.set_model("m");
  EXPECT_TRUE(Parse(message).ok());
  message.set_model("other");
  EXPECT_TRUE(absl::IsNotFound(Parse(message).status()));
}

TEST(ValidateGenerate, SessionsMayNotBeThere) {
  RequestBounds none = Bounds();
  none.sessions = false;
  v1::GenerateRequest message = Valid();
  message.set_session_id("abc");
  EXPECT_TRUE(absl::IsUnimplemented(Parse(message, none).status()));
  message.set_session_id("a/b");
  EXPECT_THAT(Fields(Parse(message, none).status()), ElementsAre("session_id"));
}

TEST(ValidateGenerate, SessionFieldsAreTaken) {
  RequestBounds bounds = Bounds();
  bounds.durable_sessions = true;
  v1::GenerateRequest message = Valid();
  message.set_session_id("abc");
  absl::StatusOr<Request> request = Parse(message, bounds);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->commit);
  EXPECT_FALSE(request->durable);
  EXPECT_EQ(request->on_conflict, OnConflict::kFail);
  message.set_etag("e1");
  message.set_durable(true);
  message.set_on_conflict(v1::CONFLICT_POLICY_CANCEL_RUNNING);
  request = Parse(message, bounds);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->session_id, "abc");
  EXPECT_EQ(request->etag, "e1");
  EXPECT_TRUE(request->durable);
  EXPECT_EQ(request->on_conflict, OnConflict::kCancelRunning);
  // An etag that no session can have matches none, and is not echoed.
  message.set_etag("line\nbreak");
  EXPECT_EQ(Parse(message, bounds)->etag, "something-else");
  EXPECT_TRUE(absl::IsFailedPrecondition(Parse(message).status()));
}

TEST(ValidateGenerate, SessionFieldsThatMeanNothing) {
  v1::GenerateRequest message = Valid();
  message.set_etag("e1");
  message.set_durable(true);
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("etag", "durable"));
  message.set_session_id("abc");
  message.set_commit_policy(v1::COMMIT_POLICY_NEVER);
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("durable"));
  message.set_durable(false);
  message.set_n(2);
  EXPECT_TRUE(Parse(message).ok());
  message.set_commit_policy(v1::COMMIT_POLICY_ON_SUCCESS);
  EXPECT_THAT(Fields(Parse(message).status()), ElementsAre("n"));
}

TEST(ValidateGenerate, ASessionsTextIsEncodedBothWays) {
  v1::GenerateRequest message;
  message.set_session_id("abc");
  absl::StatusOr<Request> request = Parse(message);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->prompt.empty() && request->prompt_if_empty.empty());
  message.set_text("The sea");
  request = Parse(message);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt,
            TestTokenizer().Encode("The sea", {.add_special_tokens = false, .continuation = true}));
  EXPECT_EQ(request->prompt_if_empty, TestTokenizer().Encode("The sea"));
  message.mutable_tokens()->add_ids(7);
  request = Parse(message);
  EXPECT_THAT(request->prompt, ElementsAre(7));
  EXPECT_THAT(request->prompt_if_empty, ElementsAre(7));
}

TEST(ValidateScore, OneTokenIsEnough) {
  v1::ScoreRequest message;
  message.mutable_tokens()->add_ids(7);
  absl::StatusOr<Request> request = ParseScore(message, Bounds(), TestTokenizer());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt.size(), 1u);
  message.set_session_id("abc");
  request = ParseScore(message, Bounds(), TestTokenizer());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->session_id, "abc");
  EXPECT_FALSE(request->commit);
  message.clear_tokens();
  EXPECT_THAT(Fields(ParseScore(message, Bounds(), TestTokenizer()).status()),
              ElementsAre("input"));
}

TEST(ValidateScore, Bounds) {
  v1::ScoreRequest message;
  const auto parse = [&] { return ParseScore(message, Bounds(), TestTokenizer()); };
  EXPECT_THAT(Fields(parse().status()), ElementsAre("input"));
  message.mutable_tokens()->add_ids(1);
  EXPECT_TRUE(parse().ok()) << "one token has no score, but alternatives that may follow it";
  message.mutable_tokens()->add_ids(2);
  message.set_top_logprobs(20);
  message.set_summary_only(true);
  const absl::StatusOr<Request> request = parse();
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->kind, RequestKind::kScore);
  EXPECT_EQ(request->score_alternatives, 20);
  EXPECT_EQ(request->output.prompt_logprobs, 20);
  EXPECT_TRUE(request->score_summary_only);
  message.set_top_logprobs(21);
  EXPECT_THAT(Fields(parse().status()), ElementsAre("top_logprobs"));
}

TEST(ValidateTokenize, AnswersAreBounded) {
  RequestBounds bounds = Bounds();
  v1::TokenizeRequest text;
  v1::TokenizeResponse tokens;
  text.set_text("Once upon a time");
  ASSERT_TRUE(Tokenize(text, bounds, TestTokenizer(), &tokens).ok());
  ASSERT_EQ(tokens.token_ids_size(), tokens.pieces_size());
  EXPECT_EQ(tokens.token_ids(0), 1);
  v1::DetokenizeRequest ids;
  *ids.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse back;
  ASSERT_TRUE(Detokenize(ids, bounds, TestTokenizer(), &back).ok());
  EXPECT_EQ(back.text(), "Once upon a time");

  bounds.max_message_bytes = 16;
  tokens.Clear();
  EXPECT_TRUE(absl::IsResourceExhausted(Tokenize(text, bounds, TestTokenizer(), &tokens)));
  bounds.max_message_bytes = 8;
  EXPECT_TRUE(absl::IsResourceExhausted(Detokenize(ids, bounds, TestTokenizer(), &back)));
  ids.add_token_ids(4096);
  EXPECT_TRUE(absl::IsInvalidArgument(Detokenize(ids, Bounds(), TestTokenizer(), &back)));
}

// ---- Without a tokenizer ----

const Tokenizer& NoTokenizer() {
  static const auto* none = new auto(Tokenizer::None({.vocab_size = 4096, .bos_id = 1}));
  return ***none;
}

TEST(WithoutTokenizer, TextIsRefusedByName) {
  v1::GenerateRequest message = Valid();
  EXPECT_TRUE(ParseGenerate(message, Bounds(), NoTokenizer(), 1).ok());
  message.mutable_stop()->add_strings("x");
  message.mutable_output()->set_text(true);
  EXPECT_THAT(Fields(ParseGenerate(message, Bounds(), NoTokenizer(), 1).status()),
              ElementsAre("stop.strings", "output.text"));
  message = Valid();
  message.set_text("The sea");
  EXPECT_THAT(Fields(ParseGenerate(message, Bounds(), NoTokenizer(), 1).status()),
              ElementsAre("text"));
  v1::ScoreRequest score;
  score.set_text("The sea");
  EXPECT_THAT(Fields(ParseScore(score, Bounds(), NoTokenizer()).status()), ElementsAre("text"));
  v1::TokenizeRequest tokenize;
  tokenize.set_text("The sea");
  v1::TokenizeResponse tokens;
  EXPECT_THAT(Fields(Tokenize(tokenize, Bounds(), NoTokenizer(), &tokens)), ElementsAre("text"));
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(5);
  v1::DetokenizeResponse text;
  EXPECT_TRUE(absl::IsFailedPrecondition(Detokenize(detokenize, Bounds(), NoTokenizer(), &text)));
}

TEST(WithoutTokenizer, IdsAreGivenUnasked) {
  const absl::StatusOr<Request> request = ParseGenerate(Valid(), Bounds(), NoTokenizer(), 1);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->output.token_ids);
  EXPECT_FALSE(request->output.text);
}

// ---- Answers that do not fit ----

TEST(Tokenize, AHopelessAnswerIsRefusedBeforeAllOfItIsComputed) {
  RequestBounds bounds = Bounds();
  bounds.max_message_bytes = 65536;
  v1::TokenizeRequest message;
  for (int i = 0; i < 200000; ++i) message.mutable_text()->append("a sea ");
  v1::TokenizeResponse response;
  const absl::Status status = Tokenize(message, bounds, TestTokenizer(), &response);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(response.token_ids_size(), 0);
  // It names what it had counted by then, which is little more than the bound.
  int64_t at_least = 0;
  ASSERT_EQ(std::sscanf(std::string(status.message()).c_str(), "the answer would have at least %ld",
                        &at_least),
            1);
  EXPECT_GT(at_least, 65536);
  EXPECT_LT(at_least, 3 * 65536);
  message.mutable_text()->resize(6000);
  EXPECT_TRUE(Tokenize(message, bounds, TestTokenizer(), &response).ok());
  EXPECT_EQ(response.token_ids_size(),
            static_cast<int>(TestTokenizer().Encode(message.text()).size()));
}

}  // namespace
}  // namespace sluice
