#include "server/status.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace sluice {
namespace {

constexpr const char* kDomain = "sluice";
constexpr const char* kTypePrefix = "type.googleapis.com/";
constexpr absl::Duration kRetryDelay = absl::Seconds(1);
// Details travel in a trailer, and clients allow 8 KiB of those.
constexpr size_t kMaxViolations = 8;
constexpr size_t kMaxTextBytes = 256;

template <typename Message>
std::string TypeUrl() {
  return absl::StrCat(kTypePrefix, Message::descriptor()->full_name());
}

// The reason why a session was not available. The engine knows no reasons, but uses fixed words.
const char* AbortedReason(absl::string_view message) {
  if (absl::StartsWith(message, "the session is busy")) return "SESSION_BUSY";
  if (absl::StartsWith(message, "the session has changed")) return "ETAG_MISMATCH";
  if (absl::StartsWith(message, "another daemon")) return "SESSION_MOVED";
  return "ABORTED";
}

// Reason of an error that names none itself.
const char* DefaultReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_REQUEST";
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case absl::StatusCode::kNotFound:
      return "SESSION_NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "SESSION_EXISTS";
    case absl::StatusCode::kAborted:
      return AbortedReason(status.message());
    case absl::StatusCode::kDataLoss:
      return "DATA_LOSS";
    case absl::StatusCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case absl::StatusCode::kResourceExhausted:
      return "OVERLOADED";
    case absl::StatusCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case absl::StatusCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case absl::StatusCode::kUnavailable:
      return "UNAVAILABLE";
    case absl::StatusCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    default:
      return "INTERNAL";
  }
}

bool MeantForClients(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInternal:
      return absl::StartsWith(status.message(), "numeric fault");
    case absl::StatusCode::kUnknown:
      return false;
    default:
      return true;
  }
}

std::string Clip(absl::string_view text) {
  if (text.size() <= kMaxTextBytes) return std::string(text);
  size_t end = kMaxTextBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole UTF-8
  return absl::StrCat(text.substr(0, end), "...");
}

}  // namespace

void FieldViolations::Add(absl::string_view field, absl::string_view description) {
  if (violations_.size() == kMaxViolations) return;
  violations_.push_back({Clip(field), Clip(description)});
}

absl::Status FieldViolations::ToStatus() const {
  if (violations_.empty()) return absl::OkStatus();
  google::rpc::BadRequest bad_request;
  for (const Violation& violation : violations_) {
    google::rpc::BadRequest::FieldViolation* out = bad_request.add_field_violations();
    out->set_field(violation.field);
    out->set_description(violation.description);
  }
  std::string message = absl::StrCat(violations_[0].field, " ", violations_[0].description);
  if (violations_.size() > 1) absl::StrAppend(&message, " (and ", violations_.size() - 1, " more)");
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(TypeUrl<google::rpc::BadRequest>(),
                    absl::Cord(bad_request.SerializeAsString()));
  return status;
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kDomain);
  status.SetPayload(TypeUrl<google::rpc::ErrorInfo>(), absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  const int64_t ms =
      std::max<int64_t>(absl::ToInt64Milliseconds(absl::Ceil(delay, absl::Milliseconds(1))), 1);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(ms / 1000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  status.SetPayload(TypeUrl<google::rpc::RetryInfo>(), absl::Cord(retry.SerializeAsString()));
  return status;
}

std::optional<int64_t> RetryMilliseconds(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(TypeUrl<google::rpc::RetryInfo>());
  google::rpc::RetryInfo retry;
  if (!payload.has_value() || !retry.ParseFromString(std::string(*payload))) return std::nullopt;
  return retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
}

google::rpc::Status ToRpcStatus(const absl::Status& original) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(original.code()));
  if (original.ok()) return out;
  absl::Status status = original;
  const bool has_reason = status.GetPayload(TypeUrl<google::rpc::ErrorInfo>()).has_value();
  if (!has_reason) {
    const char* reason = DefaultReason(status);
    status = WithReason(std::move(status), reason);
  }
  // Only conditions that pass by themselves, such as a full queue or a restart, ask for a retry. An
  // error with a reason of its own does not.
  if (!has_reason && !RetryMilliseconds(status).has_value() &&
      (absl::IsResourceExhausted(status) || absl::IsUnavailable(status))) {
    status = WithRetry(std::move(status), kRetryDelay);
  }
  out.set_message(MeantForClients(status) ? Clip(status.message()) : "internal error");
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    google::protobuf::Any* detail = out.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(payload));
  });
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc.code()), rpc.message(),
                      rpc.SerializeAsString());
}

}  // namespace sluice
