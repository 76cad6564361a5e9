// Any bytes as the body of a completion or of a chat: what is accepted is a message whose every
// field can be read, and what is refused has an error that is JSON.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/utf8.h"
#include "kernels/check.h"
#include "server/http/http_error.h"
#include "server/http/openai_request.h"

namespace sluice {
namespace {

constexpr int32_t kMaxSequences = 8;
constexpr int32_t kMaxStopStrings = 4;

void CheckMessage(const v1::GenerateRequest& message) {
  SLUICE_CHECK(message.has_text() != message.has_tokens());
  SLUICE_CHECK(IsValidUtf8(message.text()) && IsValidUtf8(message.model()));
  for (const std::string& stop : message.stop().strings()) SLUICE_CHECK(IsValidUtf8(stop));
  v1::GenerateRequest copy;
  SLUICE_CHECK(copy.ParseFromString(message.SerializeAsString()));
}

void Check(const absl::StatusOr<OpenAiRequest>& parsed, bool chat) {
  if (!parsed.ok()) {
    const HttpError error = ToHttpError(parsed.status(), chat);
    SLUICE_CHECK(error.status == 400);
    SLUICE_CHECK(nlohmann::json::accept(ErrorJson(error)));
    return;
  }
  SLUICE_CHECK(parsed->chat == chat);
  SLUICE_CHECK(!parsed->prompts.empty() && parsed->prompts.size() <= kMaxSequences);
  for (const v1::GenerateRequest& message : parsed->prompts) CheckMessage(message);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  static const ChatTemplate chat_template = *ChatTemplate::Parse("{role}: {content}\\n");
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  Check(ParseCompletion(body, kMaxSequences), false);
  Check(ParseChatCompletion(body, chat_template, kMaxStopStrings), true);
  return 0;
}
