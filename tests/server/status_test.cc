#include "server/status.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

template <typename Message>
int CountDetails(const google::rpc::Status& status, Message* last) {
  int count = 0;
  for (const google::protobuf::Any& detail : status.details()) {
    if (detail.UnpackTo(last)) ++count;
  }
  return count;
}

TEST(Status, EveryCodeKeepsItsNumberAndHasOneReason) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "numeric fault: text");
    const grpc::Status sent = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(sent.error_details()));
    EXPECT_EQ(details.code(), code);
    EXPECT_EQ(details.message(), sent.error_message());
    google::rpc::ErrorInfo info;
    ASSERT_EQ(CountDetails(details, &info), 1);
    EXPECT_EQ(info.domain(), "sluice");
    EXPECT_FALSE(info.reason().empty());
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpcStatus(absl::OkStatus()).error_details(), "");
}

TEST(Status, OnlyWhatPassesByItselfIsWorthARetry) {
  google::rpc::RetryInfo retry;
  EXPECT_EQ(CountDetails(ToRpcStatus(absl::ResourceExhaustedError("full")), &retry), 1);
  EXPECT_GT(retry.retry_delay().seconds(), 0);
  EXPECT_EQ(CountDetails(ToRpcStatus(absl::UnavailableError("drain")), &retry), 1);
  EXPECT_EQ(CountDetails(ToRpcStatus(absl::InvalidArgumentError("bad")), &retry), 0);
  EXPECT_EQ(CountDetails(
                ToRpcStatus(WithReason(absl::ResourceExhaustedError("large"), "ANSWER_TOO_LARGE")),
                &retry),
            0);
}

TEST(Status, InnerErrorsTellNothing) {
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("/home/x/model at 0x7f")).error_message(),
            "internal error");
  EXPECT_EQ(ToGrpcStatus(absl::UnknownError("what(): /proc")).error_message(), "internal error");
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("numeric fault: the model's logits are not finite"))
                .error_message(),
            "numeric fault: the model's logits are not finite");
}

TEST(Status, ViolationsBecomeOneBadRequest) {
  FieldViolations violations;
  EXPECT_TRUE(violations.ToStatus().ok());
  violations.Add("sampling.top_p", "is 2, must be in (0, 1]");
  violations.Add("n", "is 0");
  const absl::Status status = violations.ToStatus();
  EXPECT_EQ(status.message(), "sampling.top_p is 2, must be in (0, 1] (and 1 more)");
  google::rpc::BadRequest bad;
  ASSERT_EQ(CountDetails(ToRpcStatus(status), &bad), 1);
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad.field_violations(1).description(), "is 0");
}

// The trailer that carries them is 8 KiB at most, in base64.
TEST(Status, AnySetOfViolationsFitsATrailer) {
  FieldViolations violations;
  for (int i = 0; i < 10000; ++i) violations.Add(std::string(1000, 'f'), std::string(100000, 'd'));
  const grpc::Status sent = ToGrpcStatus(violations.ToStatus());
  EXPECT_LT(sent.error_details().size() * 4 / 3 + sent.error_message().size(), 8000u);
}

}  // namespace
}  // namespace sluice
