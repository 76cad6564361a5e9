#include "server/http/openai_response.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text_output.h"
#include "engine/tokenizer/utf8.h"
#include "server/http/json_writer.h"

namespace sluice {
namespace {

const char* FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kMaxTokens:
    case FinishReason::kTimeLimit:
      return "length";
    case FinishReason::kError:
      return nullptr;  // an error follows
    default:
      return "stop";
  }
}

int64_t CountCharacters(absl::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

// Names a token that is a part of a character in the way of OpenAI's API.
std::string BytesName(absl::string_view bytes) {
  std::string out = "bytes:";
  for (const char c : bytes) absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
  return out;
}

void AppendComma(std::string* out) {
  if (!out->empty()) out->push_back(',');
}

}  // namespace

std::string ServerSentEvent(absl::string_view json) { return absl::StrCat("data: ", json, "\n\n"); }

AnswerPrompt::AnswerPrompt(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt,
                           bool echoed, bool continuation)
    : first_token(prompt.empty() || continuation ? -1 : prompt.front()),
      decoder(echoed ? StreamDecoder(tokenizer, continuation)
                     : DecoderAfter(tokenizer, prompt, continuation, "")),
      after(echoed ? DecoderAfter(tokenizer, prompt, continuation, "") : decoder) {}

OpenAiAnswer::OpenAiAnswer(AnswerFormat format, const Tokenizer* tokenizer)
    : format_(std::move(format)), tokenizer_(tokenizer), session_(format_.session) {
  for (const AnswerPrompt& prompt : format_.prompts) {
    choices_.insert(choices_.end(), static_cast<size_t>(format_.n), Choice(prompt.decoder));
  }
  prompt_scored_.assign(format_.prompts.size(), false);
}

std::string OpenAiAnswer::Add(size_t prompt, const std::vector<TokenEvent>& events) {
  std::string out;
  const size_t first = prompt * static_cast<size_t>(format_.n);
  for (const TokenEvent& event : events) {
    size_t index = first;
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      prompt_tokens_ += started->prompt_tokens;
      continue;
    }
    if (format_.prompt_logprobs && !prompt_scored_[prompt]) {
      prompt_scored_[prompt] = true;
      const int32_t first_token = format_.prompts[prompt].first_token;
      if (first_token >= 0) AddLogprob(first_token, nullptr, &choices_[index]);
    }
    if (const auto* scores = std::get_if<PromptLogprobsEvent>(&event)) {
      for (const TokenLogprob& logprob : scores->logprobs) {
        AddLogprob(logprob.token, &logprob, &choices_[index]);
      }
      continue;  // told with the text that follows
    }
    if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      index += static_cast<size_t>(delta->index);
      AddDelta(prompt, *delta, &choices_[index]);
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      index += static_cast<size_t>(finished->index);
      AddFinished(*finished, &choices_[index]);
    }
    if (format_.stream) TakeChunk(index, &out);
  }
  return out;
}

// ---- Taking events in ----

void OpenAiAnswer::AddDelta(size_t prompt, const DeltaEvent& delta, Choice* choice) {
  choice->text += delta.text;
  size_ += delta.text.size();
  if (format_.token_ids) {
    const size_t before = choice->ids.size();
    for (const int32_t id : delta.token_ids) {
      AppendComma(&choice->ids);
      absl::StrAppend(&choice->ids, id);
    }
    size_ += choice->ids.size() - before;
  }
  if (!delta.logprobs.empty() && !std::exchange(choice->generates, true)) {
    choice->decoder = format_.prompts[prompt].after;
  }
  for (const TokenLogprob& logprob : delta.logprobs) AddLogprob(logprob.token, &logprob, choice);
}

void OpenAiAnswer::AddFinished(const FinishedEvent& event, Choice* choice) {
  choice->finish_reason = FinishName(event.reason);
  choice->stop_reason = StopReason(event);
  new_tokens_ += event.usage.new_tokens;
  if (event.index == 0) reused_tokens_ += event.usage.reused_tokens;
  if (!event.status.ok() && failure_.ok()) failure_ = event.status;
  if (event.session != nullptr) {
    session_ = {event.session->id, event.session->etag, event.session->position,
                /*committed=*/true};
  }
}

std::string OpenAiAnswer::StopReason(const FinishedEvent& event) const {
  if (event.reason == FinishReason::kStopToken) return absl::StrCat(event.stop_token);
  if (event.reason != FinishReason::kStopString || event.matched_stop == format_.own_stop) {
    return "null";
  }
  std::string out;
  AppendJsonString(event.matched_stop, &out);
  return out;
}

OpenAiAnswer::Shown OpenAiAnswer::Show(int32_t token, StreamDecoder* decoder) const {
  Shown out;
  if (!tokenizer_->has_text()) {
    out.name = absl::StrCat("token_id:", token);
    return out;
  }
  const absl::string_view bytes = tokenizer_->Text(token);
  if (tokenizer_->IsControl(token)) {
    out.name = std::string(tokenizer_->Piece(token));
    out.bytes = std::string(bytes);
    return out;
  }
  const std::string begun(decoder->pending());
  std::string lost;
  bool inside = false;  // the token goes on with a character
  if (!begun.empty()) {
    const std::string joined = absl::StrCat(begun, bytes);
    const Utf8Prefix prefix = ReadUtf8Prefix(joined);
    inside = prefix.kind != Utf8Kind::kInvalid || prefix.size > begun.size();
    if (!inside) StreamDecoder(*decoder).Flush(&lost);
  }
  std::string added;
  decoder->Append(token, &added);
  out.before = CountCharacters(lost);
  out.added = CountCharacters(added);
  if (inside || !decoder->pending().empty() || !IsValidUtf8(bytes)) {
    out.name = BytesName(bytes);
    out.bytes = std::string(bytes);
  } else {
    out.name = out.bytes = added.substr(lost.size());
  }
  return out;
}

void OpenAiAnswer::AddLogprob(int32_t token, const TokenLogprob* logprob, Choice* choice) {
  Logprobs& out = choice->logprobs;
  const size_t before = out.tokens.size() + out.alternatives.size();
  if (format_.chat) {
    if (logprob != nullptr) AddChatLogprob(*logprob, choice);
  } else {
    const StreamDecoder decoder = choice->decoder;
    const Shown shown = Show(token, &choice->decoder);
    AppendComma(&out.offsets);
    absl::StrAppend(&out.offsets, choice->offset + shown.before);
    choice->offset += shown.added;
    AppendComma(&out.tokens);
    AppendJsonString(shown.name, &out.tokens);
    AppendComma(&out.values);
    AppendComma(&out.alternatives);
    if (logprob == nullptr) {
      out.values += "null";
      out.alternatives += "null";
    } else {
      AppendJsonFloat(logprob->logprob, &out.values);
      AddAlternatives(*logprob, shown.name, decoder, &out.alternatives);
    }
  }
  size_ += out.tokens.size() + out.alternatives.size() - before;
}

// Two tokens may have one name: a reader of JSON keeps the last entry of a name, so that each is
// written once, the token's own before all others, and then the most likely.
void OpenAiAnswer::AddAlternatives(const TokenLogprob& logprob, const std::string& name,
                                   const StreamDecoder& decoder, std::string* out) const {
  std::vector<std::string> names;
  const auto append = [&](std::string key, float value) {
    if (std::find(names.begin(), names.end(), key) != names.end()) return;
    *out += names.empty() ? "{" : ",";
    AppendJsonString(key, out);
    *out += ':';
    AppendJsonFloat(value, out);
    names.push_back(std::move(key));
  };
  append(name, logprob.logprob);
  for (const TokenAlternative& other : logprob.alternatives) {
    if (other.token == logprob.token) continue;
    StreamDecoder copy = decoder;
    append(Show(other.token, &copy).name, other.logprob);
  }
  *out += '}';
}

void OpenAiAnswer::AddChatLogprob(const TokenLogprob& logprob, Choice* choice) const {
  std::string& out = choice->logprobs.tokens;
  const auto append = [&](const Shown& shown, float value) {
    out += "{\"token\":";
    AppendJsonString(shown.name, &out);
    out += ",\"logprob\":";
    AppendJsonFloat(value, &out);
    out += ",\"bytes\":[";
    const char* separator = "";
    for (const char c : shown.bytes) {
      absl::StrAppend(&out, std::exchange(separator, ","), static_cast<unsigned char>(c));
    }
    out += ']';
  };
  const StreamDecoder decoder = choice->decoder;
  AppendComma(&out);
  append(Show(logprob.token, &choice->decoder), logprob.logprob);
  out += ",\"top_logprobs\":[";
  const char* separator = "";
  for (const TokenAlternative& other : logprob.alternatives) {
    StreamDecoder copy = decoder;
    out += std::exchange(separator, ",");
    append(Show(other.token, &copy), other.logprob);
    out += '}';
  }
  out += "]}";
}

// ---- Writing ----

void OpenAiAnswer::AppendHead(std::string* out) const {
  const char* object = !format_.chat    ? "text_completion"
                       : format_.stream ? "chat.completion.chunk"
                                        : "chat.completion";
  *out += "{\"id\":";
  AppendJsonString(format_.id, out);
  absl::StrAppend(out, ",\"object\":\"", object, "\",\"created\":", format_.created, ",\"model\":");
  AppendJsonString(format_.model, out);
  *out += ",\"system_fingerprint\":";
  AppendJsonString(format_.fingerprint, out);
}

void OpenAiAnswer::AppendLogprobs(const Choice& choice, std::string* out) const {
  const Logprobs& logprobs = choice.logprobs;
  *out += ",\"logprobs\":";
  if (!format_.logprobs) {
    *out += "null";
  } else if (format_.chat) {
    absl::StrAppend(out, "{\"content\":[", logprobs.tokens, "],\"refusal\":null}");
  } else {
    absl::StrAppend(out, "{\"text_offset\":[", logprobs.offsets, "],\"token_logprobs\":[",
                    logprobs.values, "],\"tokens\":[", logprobs.tokens, "],\"top_logprobs\":[",
                    logprobs.alternatives, "]}");
  }
}

void OpenAiAnswer::AppendTokenIds(const Choice& choice, std::string* out) const {
  if (format_.token_ids) absl::StrAppend(out, ",\"token_ids\":[", choice.ids, "]");
}

void OpenAiAnswer::AppendChoice(size_t index, const Choice& choice, std::string* out) const {
  absl::StrAppend(out, "{\"index\":", index);
  if (format_.chat) {
    *out += ",\"message\":{\"role\":\"assistant\",\"content\":";
    AppendJsonString(choice.text, out);
    *out += ",\"refusal\":null}";
  } else {
    *out += ",\"text\":";
    AppendJsonString(choice.text, out);
  }
  AppendLogprobs(choice, out);
  AppendTokenIds(choice, out);
  absl::StrAppend(out, ",\"finish_reason\":\"",
                  choice.finish_reason == nullptr ? "stop" : choice.finish_reason,
                  "\",\"stop_reason\":", choice.stop_reason, "}");
}

void OpenAiAnswer::AppendChunkChoice(size_t index, Choice* choice, std::string* out) const {
  absl::StrAppend(out, "{\"index\":", index);
  if (format_.chat) {
    *out += ",\"delta\":{";
    const bool first = !std::exchange(choice->told_role, true);
    if (first) *out += "\"role\":\"assistant\",";
    if (first || !choice->text.empty()) {
      *out += "\"content\":";
      AppendJsonString(choice->text, out);
    }
    *out += '}';
  } else {
    *out += ",\"text\":";
    AppendJsonString(choice->text, out);
  }
  AppendLogprobs(*choice, out);
  AppendTokenIds(*choice, out);
  *out += ",\"finish_reason\":";
  if (choice->finish_reason == nullptr) {
    *out += "null}";
  } else {
    absl::StrAppend(out, "\"", choice->finish_reason, "\",\"stop_reason\":", choice->stop_reason,
                    "}");
  }
}

void OpenAiAnswer::TakeChunk(size_t index, std::string* out) {
  Choice& choice = choices_[index];
  *out += "data: ";
  AppendHead(out);
  *out += ",\"choices\":[";
  AppendChunkChoice(index, &choice, out);
  *out += format_.include_usage ? "],\"usage\":null" : "]";
  if (choice.finish_reason != nullptr) AppendSession(out);
  *out += "}\n\n";
  choice.text.clear();
  choice.ids.clear();
  choice.logprobs = Logprobs();
}

void OpenAiAnswer::AppendUsage(std::string* out) const {
  absl::StrAppend(out, "\"usage\":{\"prompt_tokens\":", prompt_tokens_,
                  ",\"completion_tokens\":", new_tokens_,
                  ",\"total_tokens\":", prompt_tokens_ + new_tokens_,
                  ",\"prompt_tokens_details\":{\"cached_tokens\":", reused_tokens_, "}");
  if (format_.turn.has_value()) {
    const AnswerTurn& turn = *format_.turn;
    absl::StrAppend(out, ",\"session_details\":{\"messages\":",
                    turn.messages > 0 ? absl::StrCat(turn.messages) : "null",
                    ",\"resent\":", turn.resent ? "true" : "false",
                    ",\"recomputed\":", turn.recomputed ? "true}" : "false}");
  }
  *out += '}';
}

void OpenAiAnswer::AppendSession(std::string* out) const {
  if (!session_.has_value()) return;
  *out += ",\"session\":{\"id\":";
  AppendJsonString(session_->id, out);
  *out += ",\"etag\":";
  AppendJsonString(session_->etag, out);
  absl::StrAppend(out, ",\"position\":", session_->position,
                  ",\"committed\":", session_->committed ? "true}" : "false}");
}

std::string OpenAiAnswer::StreamEnd() const {
  std::string out;
  if (format_.include_usage) {
    out += "data: ";
    AppendHead(&out);
    out += ",\"choices\":[],";
    AppendUsage(&out);
    AppendSession(&out);
    out += "}\n\n";
  }
  return out + "data: [DONE]\n\n";
}

std::string OpenAiAnswer::Whole() const {
  std::string out;
  AppendHead(&out);
  out += ",\"choices\":[";
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) out += ',';
    AppendChoice(i, choices_[i], &out);
  }
  out += "],";
  AppendUsage(&out);
  AppendSession(&out);
  out += '}';
  return out;
}

}  // namespace sluice
