#include "server/call_stats.h"

#include <vector>

#include "server/log.h"

namespace sluice {
namespace {

constexpr const char* kInference = "sluice.v1.InferenceService";
constexpr const char* kSessions = "sluice.v1.SessionService";
constexpr const char* kHealth = "grpc.health.v1.Health";
constexpr const char* kOpenAi = "openai.v1";  // over HTTP
constexpr MethodName kNames[kNumMethods] = {
    {kInference, "Generate"},     {kInference, "Score"},        {kInference, "Tokenize"},
    {kInference, "Detokenize"},   {kInference, "GetModel"},     {kSessions, "CreateSession"},
    {kSessions, "GetSession"},    {kSessions, "ListSessions"},  {kSessions, "UpdateSession"},
    {kSessions, "ForkSession"},   {kSessions, "DeleteSession"}, {kSessions, "ExportSession"},
    {kSessions, "ImportSession"}, {kHealth, "Check"},           {kHealth, "Watch"},
    {kOpenAi, "Completions"},     {kOpenAi, "ChatCompletions"}, {kOpenAi, "Models"},
};
constexpr const char* kCodes[kNumGrpcCodes] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

bool IsStream(Method method) {
  return method == Method::kGenerate || method == Method::kScore ||
         method == Method::kCompletions || method == Method::kChatCompletions;
}

// Probes come every few seconds from everywhere, so they are logged at a lower level.
bool IsProbe(Method method) {
  return method == Method::kHealthCheck || method == Method::kHealthWatch;
}

}  // namespace

MethodName NameOf(Method method) { return kNames[static_cast<size_t>(method)]; }

const char* CodeName(size_t code) { return code < kNumGrpcCodes ? kCodes[code] : kCodes[2]; }

void CallStats::Done(const CallRecord& call, grpc::StatusCode code, absl::Duration now) {
  const size_t index = static_cast<size_t>(code) < kNumGrpcCodes ? static_cast<size_t>(code) : 2;
  call.connection.End(code == grpc::StatusCode::CANCELLED);
  handled_[static_cast<size_t>(call.method)][index].Add();
  seconds_[static_cast<size_t>(call.method)].ObserveShared(
      absl::ToDoubleSeconds(now - call.started));
  const LogLevel level = IsProbe(call.method) ? LogLevel::kDebug : LogLevel::kInfo;
  std::vector<LogField> fields = {{"method", NameOf(call.method).method}};
  if (IsStream(call.method)) fields.emplace_back("request_id", call.request_id);
  fields.emplace_back("code", CodeName(index));
  if (IsStream(call.method)) fields.emplace_back("prompt_tokens", call.prompt_tokens);
  // The number of tokens that went out is known only after a normal end.
  const bool whole = IsStream(call.method) && code == grpc::StatusCode::OK;
  if (whole) fields.emplace_back("new_tokens", call.new_tokens);
  fields.emplace_back("seconds", now - call.started);
  if (whole) fields.emplace_back("first_token_seconds", call.time_to_first_token);
  std::string trace_id, span_id, parent_id;  // until they are logged
  if (call.span.traced()) {
    trace_id = call.span.TraceId();
    span_id = call.span.SpanId();
    parent_id = call.span.ParentId();
    fields.emplace_back("trace_id", trace_id);
    fields.emplace_back("span_id", span_id);
    fields.emplace_back("parent_span_id", parent_id);
  }
  Log(level, "call", fields);
}

}  // namespace sluice
