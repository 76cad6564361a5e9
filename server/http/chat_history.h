// Chats on a session: what the session remembers of the conversation, and what a call adds to it.
//
// A client sends the new messages, or all of them, which then must be those that the session has
// had. To know, the session keeps a note beside its state, with every commit anew: how many
// messages there were, the last answer included, a hash of them, and the text that the state has
// read behind that answer (the stop string that ended it). Spaces around a message's text count for
// nothing, because clients strip them.
#ifndef SLUICE_SERVER_HTTP_CHAT_HISTORY_H_
#define SLUICE_SERVER_HTTP_CHAT_HISTORY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "server/http/chat_template.h"

namespace sluice {

// One call of a chat on a session.
struct ChatTurn {
  std::string text{};       // what the model reads
  bool from_start = false;  // `text` is all of the conversation, and replaces the history
  bool resent = false;      // the messages were all of the conversation
  // Messages after the call, its answer included; 0: not known.
  uint32_t messages = 0;
  std::function<std::string(const HistoryEnd&)> note{};  // Request::note; null: none
};

// `position`: tokens of the session's history; `note`: its note, which may be any bytes. ABORTED
// with a reason of google.rpc.ErrorInfo where the messages do not go on from the history:
// HISTORY_MISMATCH, HISTORY_UNKNOWN (it was not made by chats), HISTORY_NEEDED (the state has read
// more than the template would write, so all messages must be sent). INVALID_ARGUMENT: no message
// is new. Pure.
absl::StatusOr<ChatTurn> PlanTurn(const ChatTemplate& chat_template,
                                  const std::vector<ChatMessage>& messages, int64_t position,
                                  absl::string_view note);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_CHAT_HISTORY_H_
