#include "server/http/chat_template.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr char kRole[] = "{role}";
constexpr char kContent[] = "{content}";
// The longest stop string.
constexpr size_t kMaxStopBytes = 256;

void DropSpaces(std::string* text) {
  while (!text->empty() && text->back() == ' ') text->pop_back();
}

absl::Status Unescape(absl::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out->push_back(text[i]);
      continue;
    }
    const char next = ++i < text.size() ? text[i] : '\0';
    if (next != 'n' && next != 't' && next != '\\') {
      return absl::InvalidArgumentError("has a \\ that is not \\n, \\t or \\\\");
    }
    out->push_back(next == 'n' ? '\n' : next == 't' ? '\t' : '\\');
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(absl::string_view text) {
  std::string plain;
  absl::Status status = Unescape(text, &plain);
  if (!status.ok()) return status;
  const size_t role = plain.find(kRole);
  const size_t content = plain.find(kContent);
  if (content == std::string::npos || plain.find(kContent, content + 1) != std::string::npos) {
    return absl::InvalidArgumentError("must have {content} once");
  }
  ChatTemplate out;
  out.has_role_ = role != std::string::npos;
  if (out.has_role_ && (role > content || plain.find(kRole, role + 1) != std::string::npos)) {
    return absl::InvalidArgumentError("may have {role} once, before {content}");
  }
  const size_t role_end = out.has_role_ ? role + sizeof(kRole) - 1 : 0;
  if (out.has_role_) out.before_role_ = plain.substr(0, role);
  out.before_content_ = plain.substr(role_end, content - role_end);
  out.after_content_ = plain.substr(content + sizeof(kContent) - 1);
  if (out.Stop().size() > kMaxStopBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("has more than ", kMaxStopBytes, " bytes between two contents"));
  }
  return out;
}

std::string ChatTemplate::Head(absl::string_view role) const {
  return absl::StrCat(before_role_, has_role_ ? role : "", before_content_);
}

std::string ChatTemplate::Render(const std::vector<ChatMessage>& messages) const {
  std::string out;
  for (const ChatMessage& message : messages) {
    absl::StrAppend(&out, Head(message.role), message.content, after_content_);
  }
  absl::StrAppend(&out, Head("assistant"));
  DropSpaces(&out);
  return out;
}

std::string ChatTemplate::Continue(const std::vector<ChatMessage>& messages) const {
  return absl::StrCat(after_content_, Render(messages));
}

std::string ChatTemplate::Stop() const {
  std::string out = absl::StrCat(after_content_, Head("user"));
  DropSpaces(&out);
  return out;
}

}  // namespace sluice
