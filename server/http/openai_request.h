// Bodies of /v1/completions and /v1/chat/completions to messages of our own API, which
// server/validate.h then checks: the bounds of a request are there and nowhere else.
//
// A field that would change the answer and cannot be honoured is refused by name
// (openai_field_names.h); null is the same as absent. Accepted beyond OpenAI's: top_k, min_p,
// typical_p, repetition_penalty, min_tokens, ignore_eos, stop_token_ids,
// include_stop_str_in_output, add_special_tokens, do_sample, return_token_ids and priority, and
// the names that other servers have for max_tokens.
#ifndef SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_
#define SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/sampling_defaults.h"
#include "server/http/answer_session.h"
#include "server/http/chat_history.h"
#include "server/http/chat_template.h"
#include "server/http/json_fields.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

struct OpenAiRequest {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;  // of a stream: its last chunk
  bool token_ids = false;      // choices have the ids of what was generated
  // A chat's: its text is rendered of them.
  std::vector<ChatMessage> messages;
  // A chat's next turn on its session.
  std::optional<ChatTurn> turn;
  // The session as it was when it was looked up. Nothing: there is none.
  std::optional<AnswerSession> session;
  // A chat's end, which is the last of stop.strings and no caller's; empty: there is none.
  std::string own_stop{};
  std::vector<std::string> unknown_fields{};  // names of what was passed over
  // One for each prompt, at least one; they are equal but for the prompt.
  std::vector<v1::GenerateRequest> prompts;
};

// Pure. INVALID_ARGUMENT with google.rpc.BadRequest, whose fields are OpenAI's. `max_sequences`:
// of all prompts together.
// `defaults` holds where the request is silent.
absl::StatusOr<OpenAiRequest> ParseCompletion(absl::string_view body, int32_t max_sequences,
                                              const SamplingDefaults& defaults = {});
absl::StatusOr<OpenAiRequest> ParseChatCompletion(absl::string_view body,
                                                  const ChatTemplate& chat_template,
                                                  int32_t max_stop_strings,
                                                  const SamplingDefaults& defaults = {});

// The field "messages"; what is wrong is noted.
std::vector<ChatMessage> ReadMessages(const JsonFields& fields);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_REQUEST_H_
