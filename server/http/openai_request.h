// Bodies of /v1/completions and /v1/chat/completions to messages of our own API, which
// server/validate.h then checks: the bounds of a request are there and nowhere else.
//
// A field that OpenAI's API has and this daemon cannot honour is refused by name where it would
// change the answer (tools, suffix, response_format, ...); one that changes nothing (user, store,
// metadata, ...), and one that nobody knows, is passed over. null is the same as absent. Accepted
// beyond OpenAI's: top_k, min_p, typical_p, repetition_penalty, min_tokens, ignore_eos,
// stop_token_ids, include_stop_str_in_output, return_token_ids and priority.
#ifndef SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_
#define SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/http/answer_session.h"
#include "server/http/chat_template.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

struct OpenAiRequest {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;  // of a stream: its last chunk
  bool token_ids = false;      // choices have the ids of what was generated
  // The session as it was when it was looked up. Nothing: there is none.
  std::optional<AnswerSession> session;
  // One for each prompt, at least one; they are equal but for the prompt.
  std::vector<v1::GenerateRequest> prompts;
};

// Pure. INVALID_ARGUMENT with google.rpc.BadRequest, whose fields are OpenAI's. `max_sequences`:
// of all prompts together.
absl::StatusOr<OpenAiRequest> ParseCompletion(absl::string_view body, int32_t max_sequences);
absl::StatusOr<OpenAiRequest> ParseChatCompletion(absl::string_view body,
                                                  const ChatTemplate& chat_template,
                                                  int32_t max_stop_strings);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_
