// A chat as one text: --chat_template, written once for each message.
//
// The template has {content}, and {role} before it if roles are to be seen; \n, \t and \\ are
// escapes. The prompt is every message in the template, then the template up to {content} for the
// role "assistant", without the spaces at its end. The model's answer ends where the next message
// of a user would begin.
#ifndef SLUICE_SERVER_HTTP_CHAT_TEMPLATE_H_
#define SLUICE_SERVER_HTTP_CHAT_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

struct ChatMessage {
  std::string role;
  std::string content;
};

class ChatTemplate {
 public:
  // INVALID_ARGUMENT with what is wrong.
  static absl::StatusOr<ChatTemplate> Parse(absl::string_view text);

  std::string Render(const std::vector<ChatMessage>& messages) const;
  // The same for messages that come after others, the last of which is rendered up to its content's
  // end.
  std::string Continue(const std::vector<ChatMessage>& messages) const;
  // The text that ends the answer; empty when nothing tells messages apart.
  std::string Stop() const;

 private:
  ChatTemplate() = default;
  std::string Head(absl::string_view role) const;

  bool has_role_ = false;
  std::string before_role_;
  std::string before_content_;
  std::string after_content_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_CHAT_TEMPLATE_H_
