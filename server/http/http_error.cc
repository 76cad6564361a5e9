#include "server/http/http_error.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "server/http/json_writer.h"
#include "server/status.h"

namespace sluice {
namespace {

constexpr char kInvalid[] = "invalid_request_error";

struct FieldName {
  absl::string_view ours;
  absl::string_view completions;
  absl::string_view chat;
};
constexpr FieldName kFieldNames[] = {
    {"sampling.", "", ""},
    {"stop.max_new_tokens", "max_tokens", "max_tokens"},
    {"stop.min_new_tokens", "min_tokens", "min_tokens"},
    {"stop.strings", "stop", "stop"},
    {"stop.token_ids", "stop_token_ids", "stop_token_ids"},
    {"output.logprobs", "logprobs", "top_logprobs"},
    {"tokens.ids", "prompt", "messages"},
    {"text", "prompt", "messages"},
    {"options.", "", ""},
    {"session.labels", "labels", "labels"},
    {"session_id", "session", "session"},
    {"token_ids", "tokens", "tokens"},
};

// `field` may go on after the name: "stop.strings[2]".
std::string FieldOf(absl::string_view field, bool chat) {
  for (const FieldName& name : kFieldNames) {
    if (!absl::StartsWith(field, name.ours)) continue;
    return absl::StrCat(chat ? name.chat : name.completions, field.substr(name.ours.size()));
  }
  return std::string(field);
}

struct Kind {
  int status;
  const char* type;
  const char* code;  // null: the reason, in lower case
};

Kind KindOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return {400, kInvalid, ""};
    case absl::StatusCode::kOutOfRange:
      return {400, kInvalid, "context_length_exceeded"};
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return {400, kInvalid, nullptr};
    case absl::StatusCode::kUnauthenticated:
      return {401, kInvalid, "invalid_api_key"};
    case absl::StatusCode::kPermissionDenied:
      return {403, kInvalid, nullptr};
    case absl::StatusCode::kNotFound:
      return {404, kInvalid, nullptr};
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return {409, kInvalid, nullptr};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", "rate_limit_exceeded"};
    case absl::StatusCode::kCancelled:
      return {499, kInvalid, nullptr};
    case absl::StatusCode::kUnavailable:
      return {503, "server_error", nullptr};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "server_error", nullptr};
    default:
      return {500, "server_error", nullptr};
  }
}

void AppendStringOrNull(const char* name, absl::string_view value, std::string* out) {
  absl::StrAppend(out, ",\"", name, "\":");
  if (value.empty()) {
    out->append("null");
  } else {
    AppendJsonString(value, out);
  }
}

}  // namespace

HttpError ToHttpError(const absl::Status& status, bool chat) {
  const google::rpc::Status rpc = ToRpcStatus(status);
  const Kind kind = KindOf(status.code());
  HttpError out;
  out.status = kind.status;
  out.type = kind.type;
  out.message = rpc.message();
  if (kind.code != nullptr) out.code = kind.code;
  for (const google::protobuf::Any& detail : rpc.details()) {
    google::rpc::BadRequest request;
    google::rpc::ErrorInfo info;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&request) && request.field_violations_size() > 0) {
      const std::string& field = request.field_violations(0).field();
      out.param = FieldOf(field, chat);
      if (absl::StartsWith(out.message, field)) out.message.replace(0, field.size(), out.param);
    } else if (kind.code == nullptr && detail.UnpackTo(&info)) {
      out.code = absl::AsciiStrToLower(info.reason());
      if (info.reason() == "ETAG_MISMATCH") out.status = 412;
    } else if (detail.UnpackTo(&retry)) {
      out.retry_ms = retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
    }
  }
  if (absl::IsUnauthenticated(status)) {
    out.message = "this daemon wants the header 'Authorization: Bearer TOKEN' with a valid token";
  }
  return out;
}

HttpError BadRequest(int status, std::string message, std::string code) {
  HttpError out;
  out.status = status;
  out.type = kInvalid;
  out.message = std::move(message);
  out.code = std::move(code);
  return out;
}

std::string ErrorJson(const HttpError& error) {
  std::string out = "{\"error\":{\"message\":";
  AppendJsonString(error.message, &out);
  out.append(",\"type\":");
  AppendJsonString(error.type, &out);
  AppendStringOrNull("param", error.param, &out);
  AppendStringOrNull("code", error.code, &out);
  out.append("}}");
  return out;
}

}  // namespace sluice
