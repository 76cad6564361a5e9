#include "server/http/chat_history.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "server/status.h"

namespace sluice {
namespace {

constexpr absl::string_view kMagic = "chat1:";
constexpr char kAssistant[] = "assistant";

using Messages = absl::Span<const ChatMessage>;

// A note's content.
struct History {
  uint32_t messages = 0;
  XXH128_hash_t digest = {};
  std::string unsaid{};
  std::string control{};
};

// The hash of a conversation that has one message more.
XXH128_hash_t Add(XXH128_hash_t before, absl::string_view role, absl::string_view content) {
  content = absl::StripAsciiWhitespace(content);
  const std::string bytes =
      absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&before), sizeof(before)),
                   role.size(), ":", role, content);
  return XXH3_128bits(bytes.data(), bytes.size());
}

XXH128_hash_t DigestOf(Messages messages, XXH128_hash_t before = {}) {
  for (const ChatMessage& message : messages) before = Add(before, message.role, message.content);
  return before;
}

std::string Write(const History& history) {
  const auto bytes = [](const auto& value) {
    return absl::string_view(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  return absl::StrCat(kMagic, bytes(history.messages), bytes(history.digest),
                      bytes(static_cast<uint32_t>(history.unsaid.size())), history.unsaid,
                      history.control);
}

std::optional<History> Read(absl::string_view note) {
  History out;
  uint32_t unsaid = 0;
  const auto take = [&](auto* value) {
    if (note.size() < sizeof(*value)) return false;
    std::memcpy(value, note.data(), sizeof(*value));
    note.remove_prefix(sizeof(*value));
    return true;
  };
  if (!absl::ConsumePrefix(&note, kMagic) || !take(&out.messages) || !take(&out.digest) ||
      !take(&unsaid) || note.size() < unsaid) {
    return std::nullopt;
  }
  out.unsaid = std::string(note.substr(0, unsaid));
  out.control = std::string(note.substr(unsaid));
  return out;
}

absl::Status Aborted(absl::string_view why, const char* reason) {
  return WithReason(absl::AbortedError(why), reason);
}

// The text that follows the last answer, without what the state has read of it. Nothing: the state
// has read something else.
std::optional<std::string> Behind(const ChatTemplate& chat_template, Messages added,
                                  const History& history) {
  std::string text = chat_template.Continue({added.begin(), added.end()});
  for (const std::string* read : {&history.control, &history.unsaid}) {
    if (absl::StartsWith(text, *read)) {
      text.erase(0, read->size());
    } else if (read == &history.unsaid) {
      return std::nullopt;
    }  // A control token that the template does not write stands between two messages.
  }
  return text;
}

// The note of a conversation of `messages`, to which the answer comes.
std::function<std::string(const HistoryEnd&)> NoteOf(uint32_t messages, XXH128_hash_t digest) {
  return [messages, digest](const HistoryEnd& end) {
    return Write({messages + 1, Add(digest, kAssistant, end.said), end.unsaid, end.control});
  };
}

absl::StatusOr<ChatTurn> PlanResent(const ChatTemplate& chat_template, Messages messages,
                                    const std::optional<History>& history) {
  if (!history.has_value()) {
    return Aborted(
        "messages has an assistant's, so it is all of the conversation, and this session's history "
        "was not made by chats: send what is new",
        "HISTORY_UNKNOWN");
  }
  const size_t had = history->messages;
  const XXH128_hash_t digest = DigestOf(messages.subspan(0, std::min(had, messages.size())));
  if (messages.size() < had || !XXH128_isEqual(digest, history->digest)) {
    return Aborted(
        absl::StrCat("messages has an assistant's, so it is all of the conversation, and "
                     "its first ",
                     had, " are not those that this session has had"),
        "HISTORY_MISMATCH");
  }
  const Messages added = messages.subspan(had);
  if (added.empty()) {
    FieldViolations violations;
    violations.Add("messages", "has no message behind the session's last answer");
    return violations.ToStatus();
  }
  ChatTurn turn;
  turn.resent = true;
  turn.messages = static_cast<uint32_t>(messages.size()) + 1;
  turn.note = NoteOf(turn.messages - 1, DigestOf(added, digest));
  if (std::optional<std::string> text = Behind(chat_template, added, *history)) {
    turn.text = *std::move(text);
  } else {
    turn.from_start = true;
    turn.text = chat_template.Render({messages.begin(), messages.end()});
  }
  return turn;
}

}  // namespace

absl::StatusOr<ChatTurn> PlanTurn(const ChatTemplate& chat_template,
                                  const std::vector<ChatMessage>& messages, int64_t position,
                                  absl::string_view note) {
  const auto count = static_cast<uint32_t>(messages.size());
  ChatTurn turn;
  if (position == 0) {
    turn.messages = count + 1;
    turn.note = NoteOf(count, DigestOf(messages));
    turn.text = chat_template.Render(messages);
    return turn;
  }
  const std::optional<History> history = Read(note);
  const bool resent = std::any_of(messages.begin(), messages.end(), [](const ChatMessage& message) {
    return message.role == kAssistant;
  });
  if (resent) return PlanResent(chat_template, messages, history);
  if (!history.has_value()) {
    turn.text = chat_template.Render(messages);
    return turn;
  }
  std::optional<std::string> text = Behind(chat_template, messages, *history);
  if (!text.has_value()) {
    return Aborted(
        "the session has read more behind its last answer than the template would write: send all "
        "messages, which are then computed from the start",
        "HISTORY_NEEDED");
  }
  turn.text = *std::move(text);
  turn.messages = history->messages + count + 1;
  turn.note = NoteOf(turn.messages - 1, DigestOf(messages, history->digest));
  return turn;
}

}  // namespace sluice
