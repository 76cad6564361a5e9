// The engine's events as OpenAI's JSON: the chunks of a stream, or one whole answer.
#ifndef SLUICE_SERVER_HTTP_OPENAI_RESPONSE_H_
#define SLUICE_SERVER_HTTP_OPENAI_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/token_sink.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/http/answer_session.h"

namespace sluice {

// One prompt's side of an answer: its tokens as its text shows them.
struct AnswerPrompt {
  // `echoed`: the answer begins with the prompt. `continuation`: the prompt goes on a history.
  AnswerPrompt(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt, bool echoed,
               bool continuation);

  int32_t first_token;    // has no log-probability; -1: there is none, or a history before it
  StreamDecoder decoder;  // of what the answer begins with
  StreamDecoder after;    // of what follows the prompt
};

struct AnswerFormat {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;  // of a stream
  bool logprobs = false;
  bool token_ids = false;
  bool prompt_logprobs = false;  // with the prompt's, for an echo
  int32_t n = 1;
  std::string id{};
  int64_t created = 0;  // seconds of Unix time
  std::string model{};
  std::string fingerprint{};
  std::optional<AnswerSession> session{};  // before the call
  std::optional<AnswerTurn> turn{};
  bool pinned = false;     // the call is refused should the session move on before it begins
  std::string own_stop{};  // of a chat: the text that ends it, which no caller asked for
  std::vector<AnswerPrompt> prompts{};
};

// One thread at a time. The tokenizer outlives it.
class OpenAiAnswer {
 public:
  OpenAiAnswer(AnswerFormat format, const Tokenizer* tokenizer);

  // Takes the events of prompt `prompt`, in order. For a stream, returns the server-sent events
  // that they make, if any; otherwise returns "", and keeps the events for Whole.
  std::string Add(size_t prompt, const std::vector<TokenEvent>& events);

  // The end of a stream that went well, after the last event.
  std::string StreamEnd() const;
  std::string Whole() const;
  // Bytes kept for Whole, nearly.
  size_t size() const { return size_; }

  // The session as far as it is known; nothing: there is none.
  const std::optional<AnswerSession>& session() const { return session_; }

  // Why a sequence failed; OK: none did.
  const absl::Status& failure() const { return failure_; }

 private:
  // JSON of the elements of a choice's arrays, with commas between them.
  struct Logprobs {
    std::string tokens;  // of a chat: all there is
    std::string values;
    std::string alternatives;
    std::string offsets;
  };
  struct Choice {
    explicit Choice(const StreamDecoder& begin) : decoder(begin) {}
    StreamDecoder decoder;   // of the tokens whose log-probabilities are told
    int64_t offset = 0;      // characters it gave
    bool generates = false;  // a token that is not the prompt's was told
    bool told_role = false;
    std::string text;
    std::string ids;  // with commas between them
    Logprobs logprobs;
    const char* finish_reason = nullptr;
    std::string stop_reason = "null";  // JSON: the stop string or token
  };
  // A token as it stands in the text.
  struct Shown {
    std::string name;
    std::string bytes;
    int64_t before = 0;  // characters that it shows to be lost, which others had begun
    int64_t added = 0;   // characters that the text has more, the lost ones included
  };

  void AddDelta(size_t prompt, const DeltaEvent& delta, Choice* choice);
  void AddFinished(const FinishedEvent& event, Choice* choice);
  // `logprob` null: a token without one.
  void AddLogprob(int32_t token, const TokenLogprob* logprob, Choice* choice);
  void AddAlternatives(const TokenLogprob& logprob, const std::string& name,
                       const StreamDecoder& decoder, std::string* out) const;
  void AddChatLogprob(const TokenLogprob& logprob, Choice* choice) const;
  // The next token of the text that `decoder` has read.
  Shown Show(int32_t token, StreamDecoder* decoder) const;
  std::string StopReason(const FinishedEvent& event) const;
  // Appends what a choice has gathered as one chunk, and empties it.
  void TakeChunk(size_t index, std::string* out);
  void AppendHead(std::string* out) const;
  void AppendChoice(size_t index, const Choice& choice, std::string* out) const;
  void AppendChunkChoice(size_t index, Choice* choice, std::string* out) const;
  void AppendLogprobs(const Choice& choice, std::string* out) const;
  void AppendTokenIds(const Choice& choice, std::string* out) const;
  void AppendUsage(std::string* out) const;
  // Appends the member "session" and a comma before it, if there is one.
  void AppendSession(std::string* out) const;

  const AnswerFormat format_;
  const Tokenizer* const tokenizer_;
  std::vector<Choice> choices_;      // prompt by prompt
  std::vector<bool> prompt_scored_;  // its first token was told
  size_t size_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t new_tokens_ = 0;
  int64_t reused_tokens_ = 0;
  std::optional<AnswerSession> session_;
  absl::Status failure_;
};

// `json` as a server-sent event.
std::string ServerSentEvent(absl::string_view json);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_RESPONSE_H_
