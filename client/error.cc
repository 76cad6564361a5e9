#include "client/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/proto_time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace sluice {
namespace {

constexpr absl::string_view kRetryInfoUrl = "type.googleapis.com/google.rpc.RetryInfo";
constexpr absl::string_view kErrorInfoUrl = "type.googleapis.com/google.rpc.ErrorInfo";

std::string OneLine(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\r", " "}, {"\n", " "}});
}

void Append(absl::string_view part, std::string* line) {
  absl::StrAppend(line, line->empty() ? "" : "; ", part);
}

// Recognises gRPC's own words for a peer whose first bytes are not HTTP/2.
bool IsHttp1(absl::string_view message) {
  return absl::StrContains(message, "http1.x") || absl::StrContains(message, "HTTP/1");
}

// Nothing answered: no details came, and gRPC made up the message itself.
std::string UnreachedHint(const grpc::Status& status, absl::string_view address) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    if (IsHttp1(status.error_message())) {
      return absl::StrCat(address, " speaks HTTP/1, as --admin_listen and --http_listen do; ",
                          "give --address the address of --listen");
    }
    return absl::StrCat("is sluiced running at ", address, "?");
  }
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return absl::StrCat("what answers at ", address, " does not offer this call");
  }
  return "";
}

std::string DescribeDetails(const google::rpc::Status& rich) {
  std::string violations;
  std::string retry;
  for (const google::protobuf::Any& detail : rich.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::QuotaFailure quota;
    google::rpc::RetryInfo retry_info;
    if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        Append(absl::StrCat(violation.field(), ": ", violation.description()), &violations);
      }
    } else if (detail.Is<google::rpc::QuotaFailure>() && detail.UnpackTo(&quota)) {
      for (const auto& violation : quota.violations()) {
        Append(absl::StrCat(violation.subject(), ": ", violation.description()), &violations);
      }
    } else if (detail.Is<google::rpc::RetryInfo>() && detail.UnpackTo(&retry_info)) {
      const absl::Duration delay = FromProto(retry_info.retry_delay());
      retry = absl::StrCat(
          "retry in ", absl::ToInt64Milliseconds(absl::Ceil(delay, absl::Milliseconds(1))), " ms");
    }
  }
  // Violations repeat what the message says, with the field's name.
  std::string line = violations.empty() ? rich.message() : violations;
  if (!retry.empty()) Append(retry, &line);
  return line;
}

}  // namespace

absl::Status ToAbslStatus(const grpc::Status& status, absl::string_view address) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  google::rpc::Status rich;
  if (status.error_details().empty() || !rich.ParseFromString(status.error_details())) {
    std::string line = status.error_message();
    const std::string hint = UnreachedHint(status, address);
    if (!hint.empty()) Append(hint, &line);
    return absl::Status(code, OneLine(line));
  }
  if (rich.message().empty()) rich.set_message(status.error_message());
  absl::Status result(code, OneLine(DescribeDetails(rich)));
  for (const google::protobuf::Any& detail : rich.details()) {
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryInfoUrl);
  google::rpc::RetryInfo retry_info;
  if (!payload.has_value() || !retry_info.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return FromProto(retry_info.retry_delay());
}

std::string ErrorReason(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrorInfoUrl);
  google::rpc::ErrorInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) return "";
  return info.reason();
}

}  // namespace sluice
