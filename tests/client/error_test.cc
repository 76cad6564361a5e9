#include "client/error.h"

#include <string>

#include "absl/status/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr absl::string_view kAddress = "127.0.0.1:50051";

grpc::Status WithDetails(grpc::StatusCode code, const google::rpc::Status& rich) {
  return grpc::Status(code, rich.message(), rich.SerializeAsString());
}

TEST(ErrorTest, OkIsOk) { EXPECT_TRUE(ToAbslStatus(grpc::Status::OK, kAddress).ok()); }

TEST(ErrorTest, FieldViolationsReplaceTheMessage) {
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field("sampling.top_p");
  violation->set_description("is 2, must be in (0, 1]");
  violation = bad_request.add_field_violations();
  violation->set_field("n");
  violation->set_description("is 65, must be in [1, 64]");
  google::rpc::Status rich;
  rich.set_message("2 fields are wrong");
  rich.add_details()->PackFrom(bad_request);
  const absl::Status status =
      ToAbslStatus(WithDetails(grpc::StatusCode::INVALID_ARGUMENT, rich), kAddress);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "sampling.top_p: is 2, must be in (0, 1]; n: is 65, must be in [1, 64]");
  EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.BadRequest").has_value());
}

TEST(ErrorTest, RetryDelayIsToldAndKept) {
  google::rpc::RetryInfo retry_info;
  retry_info.mutable_retry_delay()->set_nanos(250'400'000);
  google::rpc::Status rich;
  rich.set_message("the queue is full");
  rich.add_details()->PackFrom(retry_info);
  const absl::Status status =
      ToAbslStatus(WithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, rich), kAddress);
  EXPECT_EQ(status.message(), "the queue is full; retry in 251 ms");
  EXPECT_EQ(RetryDelay(status), absl::Microseconds(250400));
}

TEST(ErrorTest, NoRetryDelayWithoutRetryInfo) {
  EXPECT_EQ(RetryDelay(absl::UnavailableError("no")), std::nullopt);
}

TEST(ErrorTest, AnHttpPortGetsAHint) {
  const grpc::Status http(grpc::StatusCode::UNAVAILABLE, "Trying to connect an http1.x server");
  EXPECT_EQ(ToAbslStatus(http, kAddress).message(),
            "Trying to connect an http1.x server; 127.0.0.1:50051 speaks HTTP/1, as --admin_listen "
            "and --http_listen do; give --address the address of --listen");
}

TEST(ErrorTest, UnreachedDaemonGetsAHint) {
  const grpc::Status refused(grpc::StatusCode::UNAVAILABLE, "connection\nrefused");
  EXPECT_EQ(ToAbslStatus(refused, kAddress).message(),
            "connection refused; is sluiced running at 127.0.0.1:50051?");
}

TEST(ErrorTest, DrainingDaemonGetsNoHint) {
  google::rpc::Status rich;
  rich.set_message("draining");
  rich.add_details()->PackFrom(google::rpc::ErrorInfo());
  const absl::Status status =
      ToAbslStatus(WithDetails(grpc::StatusCode::UNAVAILABLE, rich), kAddress);
  EXPECT_EQ(status.message(), "draining");
}

TEST(ErrorTest, AnotherServerIsTold) {
  const grpc::Status other(grpc::StatusCode::UNIMPLEMENTED, "");
  EXPECT_EQ(ToAbslStatus(other, kAddress).message(),
            "what answers at 127.0.0.1:50051 does not offer this call");
}

TEST(ErrorTest, DetailsThatAreNoStatusAreIgnored) {
  const grpc::Status odd(grpc::StatusCode::INTERNAL, "broken", "\xFF\xFF\xFF");
  EXPECT_EQ(ToAbslStatus(odd, kAddress).message(), "broken");
}

TEST(ErrorTest, QuotaIsTold) {
  google::rpc::QuotaFailure quota;
  quota.add_violations()->set_subject("queued tokens");
  quota.mutable_violations(0)->set_description("2000 would be above 1000");
  google::rpc::Status rich;
  rich.set_message("no");
  rich.add_details()->PackFrom(quota);
  const absl::Status status =
      ToAbslStatus(WithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, rich), kAddress);
  EXPECT_EQ(status.message(), "queued tokens: 2000 would be above 1000");
}

}  // namespace
}  // namespace sluice
