#include "server/http/http_error.h"

#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/status.h"

namespace sluice {
namespace {

nlohmann::json ErrorOf(const HttpError& error) {
  return nlohmann::json::parse(ErrorJson(error))["error"];
}

TEST(HttpErrorTest, EachCodeHasItsStatus) {
  const std::pair<absl::StatusCode, int> cases[] = {
      {absl::StatusCode::kInvalidArgument, 400},  {absl::StatusCode::kOutOfRange, 400},
      {absl::StatusCode::kUnimplemented, 400},    {absl::StatusCode::kUnauthenticated, 401},
      {absl::StatusCode::kPermissionDenied, 403}, {absl::StatusCode::kNotFound, 404},
      {absl::StatusCode::kAborted, 409},          {absl::StatusCode::kResourceExhausted, 429},
      {absl::StatusCode::kUnavailable, 503},      {absl::StatusCode::kDeadlineExceeded, 504},
      {absl::StatusCode::kInternal, 500},         {absl::StatusCode::kUnknown, 500}};
  for (const auto& [code, status] : cases) {
    EXPECT_EQ(ToHttpError(absl::Status(code, "x"), false).status, status) << code;
  }
}

TEST(HttpErrorTest, FieldsHaveTheirNamesOfOpenAi) {
  FieldViolations violations;
  violations.Add("stop.max_new_tokens", "is -1, must be in [0, 8]");
  const nlohmann::json error = ErrorOf(ToHttpError(violations.ToStatus(), false));
  EXPECT_EQ(error["param"], "max_tokens");
  EXPECT_EQ(error["message"], "max_tokens is -1, must be in [0, 8]");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_TRUE(error["code"].is_null());
}

TEST(HttpErrorTest, AChatHasOtherNames) {
  FieldViolations violations;
  violations.Add("output.logprobs", "is 99");
  EXPECT_EQ(ToHttpError(violations.ToStatus(), false).param, "logprobs");
  EXPECT_EQ(ToHttpError(violations.ToStatus(), true).param, "top_logprobs");
  FieldViolations text;
  text.Add("text", "has 0 tokens");
  EXPECT_EQ(ToHttpError(text.ToStatus(), true).message, "messages has 0 tokens");
}

TEST(HttpErrorTest, SaysWhenToComeAgain) {
  const HttpError error = ToHttpError(
      WithRetry(absl::ResourceExhaustedError("too many"), absl::Milliseconds(1500)), false);
  EXPECT_EQ(error.retry_ms, 1500);
  EXPECT_EQ(ErrorOf(error)["code"], "rate_limit_exceeded");
  EXPECT_FALSE(ToHttpError(absl::InvalidArgumentError("x"), false).retry_ms.has_value());
}

TEST(HttpErrorTest, NothingOfTheInsideGetsOut) {
  const nlohmann::json error = ErrorOf(ToHttpError(absl::InternalError("a path /x/y.cc:3"), false));
  EXPECT_EQ(error["message"], "internal error");
  EXPECT_EQ(error["type"], "server_error");
}

TEST(HttpErrorTest, AnotherModelIsNamed) {
  const absl::Status status = WithReason(absl::NotFoundError("no such"), "MODEL_NOT_FOUND");
  EXPECT_EQ(ToHttpError(status, false).code, "model_not_found");
}

}  // namespace
}  // namespace sluice
