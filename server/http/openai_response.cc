#include "server/http/openai_response.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

OpenAiAnswer::OpenAiAnswer(AnswerFormat format, const Tokenizer* tokenizer)
    : format_(std::move(format)), tokenizer_(tokenizer), session_(format_.session) {
  const size_t choices = format_.first_tokens.size() * static_cast<size_t>(format_.n);
  choices_.assign(choices, Choice(tokenizer, /*continuation=*/!format_.prompt_logprobs));
  prompt_scored_.assign(format_.first_tokens.size(), false);
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
      if (format_.first_tokens[prompt] >= 0) {
        AddLogprob(format_.first_tokens[prompt], nullptr, &choices_[index]);
      }
    }
    if (const auto* scores = std::get_if<PromptLogprobsEvent>(&event)) {
      for (const TokenLogprob& logprob : scores->logprobs) {
        AddLogprob(logprob.token, &logprob, &choices_[index]);
      }
      continue;  // told with the text that follows
    }
    if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      index += static_cast<size_t>(delta->index);
      AddDelta(*delta, &choices_[index]);
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      index += static_cast<size_t>(finished->index);
      AddFinished(*finished, &choices_[index]);
    }
    if (format_.stream) TakeChunk(index, &out);
  }
  return out;
}

// ---- Taking events in ----

void OpenAiAnswer::AddDelta(const DeltaEvent& delta, Choice* choice) {
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
  for (const TokenLogprob& logprob : delta.logprobs) AddLogprob(logprob.token, &logprob, choice);
}

void OpenAiAnswer::AddFinished(const FinishedEvent& event, Choice* choice) {
  choice->finish_reason = FinishName(event.reason);
  new_tokens_ += event.usage.new_tokens;
  if (event.index == 0) reused_tokens_ += event.usage.reused_tokens;
  if (!event.status.ok() && failure_.ok()) failure_ = event.status;
  if (event.session != nullptr) {
    session_ = {event.session->id, event.session->etag, event.session->position,
                /*committed=*/true};
  }
}

std::string OpenAiAnswer::TokenText(int32_t token) const {
  if (!tokenizer_->has_text()) return absl::StrCat("token_id:", token);
  if (tokenizer_->IsControl(token)) return std::string(tokenizer_->Piece(token));
  const absl::string_view text = tokenizer_->Text(token);
  return IsValidUtf8(text) ? std::string(text) : BytesName(text);
}

// The token as it stands in the text: without the space that Encode made up in front of it.
std::string OpenAiAnswer::NextToken(int32_t token, Choice* choice) const {
  if (!tokenizer_->has_text()) return TokenText(token);
  std::string added;
  const bool in_character = !choice->decoder.pending().empty();
  choice->decoder.Append(token, &added);
  choice->offset += CountCharacters(added);
  if (in_character || !choice->decoder.pending().empty()) {
    return BytesName(tokenizer_->Text(token));
  }
  return added.empty() ? TokenText(token) : added;
}

void OpenAiAnswer::AddLogprob(int32_t token, const TokenLogprob* logprob, Choice* choice) {
  Logprobs& out = choice->logprobs;
  const size_t before = out.tokens.size() + out.alternatives.size();
  if (format_.chat) {
    if (logprob != nullptr) AddChatLogprob(*logprob, choice);
  } else {
    AppendComma(&out.offsets);
    absl::StrAppend(&out.offsets, choice->offset);
    const std::string text = NextToken(token, choice);
    AppendComma(&out.tokens);
    AppendJsonString(text, &out.tokens);
    AppendComma(&out.values);
    AppendComma(&out.alternatives);
    if (logprob == nullptr) {
      out.values += "null";
      out.alternatives += "null";
    } else {
      AppendJsonFloat(logprob->logprob, &out.values);
      out.alternatives += '{';
      AppendJsonString(text, &out.alternatives);
      out.alternatives += ':';
      AppendJsonFloat(logprob->logprob, &out.alternatives);
      for (const TokenAlternative& other : logprob->alternatives) {
        if (other.token == token) continue;
        out.alternatives += ',';
        AppendJsonString(TokenText(other.token), &out.alternatives);
        out.alternatives += ':';
        AppendJsonFloat(other.logprob, &out.alternatives);
      }
      out.alternatives += '}';
    }
  }
  size_ += out.tokens.size() + out.alternatives.size() - before;
}

void OpenAiAnswer::AddChatLogprob(const TokenLogprob& logprob, Choice* choice) const {
  std::string& out = choice->logprobs.tokens;
  const auto append = [&](int32_t token, float value) {
    out += "{\"token\":";
    AppendJsonString(TokenText(token), &out);
    out += ",\"logprob\":";
    AppendJsonFloat(value, &out);
    out += ",\"bytes\":[";
    const char* separator = "";
    for (const char c : tokenizer_->Text(token)) {
      absl::StrAppend(&out, std::exchange(separator, ","), static_cast<unsigned char>(c));
    }
    out += ']';
  };
  AppendComma(&out);
  append(logprob.token, logprob.logprob);
  out += ",\"top_logprobs\":[";
  const char* separator = "";
  for (const TokenAlternative& other : logprob.alternatives) {
    out += std::exchange(separator, ",");
    append(other.token, other.logprob);
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
                  choice.finish_reason == nullptr ? "stop" : choice.finish_reason, "\"}");
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
    absl::StrAppend(out, "\"", choice->finish_reason, "\"}");
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
                  ",\"prompt_tokens_details\":{\"cached_tokens\":", reused_tokens_, "}}");
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
