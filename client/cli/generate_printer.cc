#include "client/cli/generate_printer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cli/text.h"
#include "client/client.h"
#include "client/proto_time.h"

namespace sluice {
namespace {

constexpr char kDim[] = "\033[2m";
constexpr char kPlain[] = "\033[0m";

// More than any daemon generates from one prompt.
constexpr int32_t kMaxSequences = 4096;

std::string DescribeEnd(const v1::Finished& end) {
  std::string text = FinishReasonName(end.reason());
  if (!end.matched_stop().empty()) {
    absl::StrAppend(&text, " \"", EscapeControls(end.matched_stop()), "\"");
  }
  return text;
}

}  // namespace

GeneratePrinter::GeneratePrinter(int32_t sequences, bool json, const Io& io)
    : io_(io), json_(json), sequences_(std::clamp(sequences, 1, kMaxSequences)) {}

void GeneratePrinter::Print(const v1::GenerateResponse& event) {
  if (event.has_started()) started_ = event.started();
  if (json_) io_.out << ToJson(event) << std::endl;
  // The daemon's indexes are not trusted to be those asked for.
  const uint32_t index = event.has_delta() ? event.delta().index() : event.finished().index();
  if (index >= sequences_.size()) return;
  if (event.has_finished()) {
    sequences_[index].finished = true;
    sequences_[index].end = event.finished();
    if (event.finished().reason() == v1::FINISH_REASON_ERROR) {
      failed_ = true;
      io_.err << "sluice: sequence " << index << ": " << event.finished().status().message()
              << "\n";
    }
  }
  if (!json_) PrintText(event);
}

void GeneratePrinter::PrintText(const v1::GenerateResponse& event) {
  if (sequences_.size() == 1) {
    if (event.has_delta() && !event.delta().text().empty()) {
      Write(event.delta().text());
      io_.out.flush();
    }
    return;
  }
  if (event.has_delta()) sequences_[event.delta().index()].text += event.delta().text();
  if (event.has_finished()) PrintFinishedSequences();
}

void GeneratePrinter::Write(const std::string& text) {
  if (text.empty()) return;
  io_.out << (io_.out_is_terminal ? ForTerminal(text) : text);
  line_is_open_ = text.back() != '\n';
}

void GeneratePrinter::PrintFinishedSequences() {
  while (printed_sequences_ < sequences_.size() && sequences_[printed_sequences_].finished) {
    Sequence& sequence = sequences_[printed_sequences_];
    if (line_is_open_) Write("\n");
    ++printed_sequences_;
    Write(absl::StrCat("--- ", printed_sequences_, " of ", sequences_.size(), " (",
                       DescribeEnd(sequence.end), ") ---\n"));
    Write(sequence.text);
    sequence.text.clear();
  }
  io_.out.flush();
}

void GeneratePrinter::End(bool stats) {
  if (line_is_open_) Write("\n");
  io_.out.flush();
  if (!stats || !sequences_[0].finished) return;
  const bool dim = io_.err_is_terminal;
  io_.err << (dim ? kDim : "") << Stats() << (dim ? kPlain : "") << "\n";
}

std::string GeneratePrinter::Stats() const {
  int64_t new_tokens = 0;
  absl::Duration first_token = absl::InfiniteDuration();
  absl::Duration decode;
  for (const Sequence& sequence : sequences_) {
    new_tokens += sequence.end.usage().new_tokens();
    first_token = std::min(first_token, FromProto(sequence.end.timings().time_to_first_token()));
    decode = std::max(decode, FromProto(sequence.end.timings().decode()));
  }
  std::string line = absl::StrCat("[", WithCommas(started_.prompt_tokens()), " prompt + ",
                                  WithCommas(new_tokens), " new tokens");
  if (new_tokens > 0) absl::StrAppend(&line, "; first after ", FormatMilliseconds(first_token));
  // The first token of each sequence is the prompt's work.
  const auto decoded = static_cast<double>(new_tokens - static_cast<int64_t>(sequences_.size()));
  if (decoded > 0 && decode > absl::ZeroDuration()) {
    const double rate = decoded / absl::ToDoubleSeconds(decode);
    absl::StrAppend(&line, "; then ", WithCommas(static_cast<int64_t>(std::min(rate, 1e15))),
                    " tok/s");
  }
  if (sequences_.size() == 1) absl::StrAppend(&line, "; ", DescribeEnd(sequences_[0].end));
  return absl::StrCat(line, "; seed ", started_.seed(), "]");
}

}  // namespace sluice
