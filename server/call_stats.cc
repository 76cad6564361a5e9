#include "server/call_stats.h"

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

// Probes come every few seconds from every side.
bool IsProbe(Method method) {
  return method == Method::kHealthCheck || method == Method::kHealthWatch;
}

}  // namespace

MethodName NameOf(Method method) { return kNames[static_cast<size_t>(method)]; }

const char* CodeName(size_t code) { return code < kNumGrpcCodes ? kCodes[code] : kCodes[2]; }

void CallStats::Done(const CallRecord& call, grpc::StatusCode code, absl::Duration now) {
  const size_t index = static_cast<size_t>(code) < kNumGrpcCodes ? static_cast<size_t>(code) : 2;
  handled_[static_cast<size_t>(call.method)][index].Add();
  const LogLevel level = IsProbe(call.method) ? LogLevel::kDebug : LogLevel::kInfo;
  const char* method = NameOf(call.method).method;
  if (!IsStream(call.method)) {
    Log(level, "call",
        {{"method", method}, {"code", CodeName(index)}, {"seconds", now - call.started}});
    return;
  }
  if (code != grpc::StatusCode::OK) {
    // How many tokens went out is known at a normal end alone.
    Log(level, "call",
        {{"method", method},
         {"request_id", call.request_id},
         {"code", CodeName(index)},
         {"prompt_tokens", call.prompt_tokens},
         {"seconds", now - call.started}});
    return;
  }
  Log(level, "call",
      {{"method", method},
       {"request_id", call.request_id},
       {"code", CodeName(index)},
       {"prompt_tokens", call.prompt_tokens},
       {"new_tokens", call.new_tokens},
       {"seconds", now - call.started},
       {"first_token_seconds", call.time_to_first_token}});
}

}  // namespace sluice
