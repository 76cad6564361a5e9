// sluice check: a checkpoint against logits that another program computed.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/private_daemon.h"
#include "client/cli/text.h"
#include "client/open_file.h"
#include "nlohmann/json.hpp"
#include "sluice/v1/score.pb.h"

namespace sluice {
namespace {

using ::nlohmann::json;

constexpr int32_t kAlternatives = 20;  // of each place; the daemon's --max_logprobs by default
constexpr double kTolerance = 0.05;    // nats: bf16 weights against float32 ones

// What the file holds: the tokens, and the log-probability of every next token after each of the
// last of them.
struct Reference {
  std::vector<int32_t> ids;
  std::vector<std::vector<double>> logprobs;

  // The row of what follows ids[place]; null if the file has none.
  const std::vector<double>* After(size_t place) const {
    const size_t first = ids.size() - logprobs.size();
    return place < first || place >= ids.size() ? nullptr : &logprobs[place - first];
  }
};

struct Findings {
  int64_t compared = 0;
  double sum_of_squares = 0;
  double greatest = 0;  // difference of a log-probability
  std::string greatest_at;
  int64_t places = 0;
  int64_t other_first = 0;  // places whose most likely token is another, by more than the tolerance
};

absl::StatusOr<std::vector<double>> LogProbabilities(const json& logits) {
  if (!logits.is_array() || logits.empty()) {
    return absl::InvalidArgumentError("is no list of numbers");
  }
  std::vector<double> values;
  for (const json& value : logits) {
    if (!value.is_number()) return absl::InvalidArgumentError("holds something that is no number");
    values.push_back(value.get<double>());
  }
  const double top = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += std::exp(value - top);
  for (double& value : values) value -= top + std::log(sum);
  return values;
}

absl::StatusOr<Reference> ReadReference(const std::string& file) {
  std::ifstream in;
  const absl::Status opened = OpenFile(file, &in);
  if (!opened.ok()) return opened;
  const auto error = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
  };
  const json read = json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!read.is_object() || !read.contains("ids") || !read.contains("logits") ||
      !read["ids"].is_array() || !read["logits"].is_array()) {
    return error("must be {\"ids\": [...], \"logits\": [[...], ...]}");
  }
  Reference reference;
  for (const json& id : read["ids"]) {
    if (!id.is_number_integer()) return error("ids holds something that is no whole number");
    reference.ids.push_back(id.get<int32_t>());
  }
  for (const json& row : read["logits"]) {
    absl::StatusOr<std::vector<double>> logprobs = LogProbabilities(row);
    if (!logprobs.ok()) {
      return error(
          absl::StrCat("logits[", reference.logprobs.size(), "] ", logprobs.status().message()));
    }
    reference.logprobs.push_back(*std::move(logprobs));
    if (reference.logprobs.back().size() != reference.logprobs.front().size()) {
      return error("the rows of logits differ in length");
    }
  }
  if (reference.logprobs.empty() || reference.logprobs.size() > reference.ids.size()) {
    return error(absl::StrCat("has ", reference.ids.size(), " ids and ", reference.logprobs.size(),
                              " rows of logits, must have a row for each of the last ids"));
  }
  return reference;
}

// Compares what the daemon says of the tokens after ids[place].
class Comparison {
 public:
  Comparison(const Reference& reference, double tolerance)
      : reference_(reference), tolerance_(tolerance) {}

  void AddToken(size_t place, int32_t id, double logprob) {
    const std::vector<double>* row = reference_.After(place);
    if (row == nullptr || id < 0 || static_cast<size_t>(id) >= row->size()) return;
    const double expected = (*row)[static_cast<size_t>(id)];
    const double difference = std::abs(logprob - expected);
    ++findings_.compared;
    findings_.sum_of_squares += difference * difference;
    if (difference <= findings_.greatest) return;
    findings_.greatest = difference;
    findings_.greatest_at = absl::StrFormat(
        "token %d after position %d: %.4f here, %.4f in the file", id, place, logprob, expected);
  }

  template <typename Alternatives>
  void AddPlace(size_t place, const Alternatives& best) {
    const std::vector<double>* row = reference_.After(place);
    if (row == nullptr || best.empty()) return;
    for (const v1::Alternative& one : best) AddToken(place, one.token_id(), one.logprob());
    const double top = *std::max_element(row->begin(), row->end());
    const auto first = static_cast<size_t>(best[0].token_id());
    ++findings_.places;
    if (first >= row->size() || top - (*row)[first] > tolerance_) ++findings_.other_first;
  }

  const Findings& findings() const { return findings_; }

 private:
  const Reference& reference_;
  const double tolerance_;
  Findings findings_;
};

absl::StatusOr<Findings> CompareWith(const Client& client, const CallOptions& call,
                                     const Reference& reference, double tolerance) {
  const absl::StatusOr<v1::Model> model = client.GetModel({}, call);
  if (!model.ok()) return model.status();
  const auto vocab = static_cast<int64_t>(reference.logprobs.front().size());
  if (vocab != model->vocab_size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the file has logits of ", vocab, " tokens, the model has ", model->vocab_size()));
  }
  v1::ScoreRequest request;
  for (const int32_t id : reference.ids) request.mutable_tokens()->add_ids(id);
  request.set_top_logprobs(std::min<int64_t>(kAlternatives, vocab));
  Comparison comparison(reference, tolerance);
  size_t place = 0;
  const absl::Status status = client.Score(request, call, [&](const v1::ScoreResponse& event) {
    for (const v1::TokenLogprob& row : event.logprobs().logprobs()) {
      comparison.AddToken(place, row.token_id(), row.logprob());
      comparison.AddPlace(place, row.alternatives());
      ++place;
    }
    if (event.has_summary()) comparison.AddPlace(place, event.summary().next());
    return true;
  });
  if (!status.ok()) return status;
  return comparison.findings();
}

int Run(const Command& command, Invocation* call) {
  std::string against;
  double tolerance = kTolerance;
  std::vector<std::string> daemon_flags;
  FlagSet flags;
  flags.Add(
      {"against", "FILE",
       "Compares with this file, which is required: {\"ids\": [...], \"logits\": [[...], ...]}, "
       "a row of the whole vocabulary's logits after each id, or after the last ids.",
       ToString([&](std::string text) { against = std::move(text); })});
  flags.Add({"tolerance", "X",
             "Accepts differences of a log-probability up to X nats. Default: 0.05.",
             ToDouble([&](double value) { tolerance = value; })});
  flags.Add({"daemon-flag", "FLAG",
             "Adds this flag to sluiced's command line, such as --device=cuda or --tokenizer=none. "
             "The flag may be repeated.",
             ToString([&](std::string text) { daemon_flags.push_back(std::move(text)); })});
  if (const std::optional<int> code = ParseLocalCommandLine(command, &flags, call)) return *code;
  const Io& io = call->io;
  if (call->args.size() != 1) return UsageError(command, io, "takes one model directory");
  if (against.empty()) return UsageError(command, io, "--against=FILE is required");
  const absl::StatusOr<Reference> reference = ReadReference(against);
  if (!reference.ok()) return UsageError(command, io, reference.status().message());
  const absl::StatusOr<std::string> program = FindSluiced(io.environment);
  if (!program.ok()) return UsageError(command, io, program.status().message());
  const absl::StatusOr<std::unique_ptr<PrivateDaemon>> daemon =
      PrivateDaemon::Start(*program, call->args[0], daemon_flags, io.cancellation);
  if (!daemon.ok()) return CallFailed(io, daemon.status());
  call->connection.address = (*daemon)->address();
  call->connection.token.clear();
  const absl::StatusOr<Findings> found =
      CompareWith(call->MakeClient(), call->Call(), *reference, tolerance);
  if (!found.ok()) return CallFailed(io, found.status());
  const bool agrees = found->greatest <= tolerance && found->other_first == 0;
  io.out << absl::StrFormat(
      "compared      %s log-probabilities after %s tokens\n"
      "rms           %.6f nats\n"
      "greatest      %.6f nats%s\n"
      "first choice  another one in %d places\n"
      "verdict       %s (tolerance %g nats)\n",
      WithCommas(found->compared), WithCommas(found->places),
      std::sqrt(found->sum_of_squares / static_cast<double>(std::max<int64_t>(found->compared, 1))),
      found->greatest, found->greatest_at.empty() ? "" : absl::StrCat(", ", found->greatest_at),
      found->other_first, agrees ? "agrees" : "DIFFERS", tolerance);
  return agrees ? kExitOk : kExitFailed;
}

}  // namespace

const Command kCheckCommand = {
    "check",
    "compares a model with logits that your own program computed",
    "[FLAGS] DIR --against=FILE",
    "Serves DIR by a daemon of its own, and compares its log-probabilities with the file's: of "
    "each\n"
    "next token, and of the 20 likeliest in each place. deploy/CHECKPOINTS.md has the lines of\n"
    "PyTorch that write the file. Exit code 1 when they differ.",
    "  sluice check models/gla-1.3B --against=logits.json\n"
    "  sluice check models/mine --against=logits.json --daemon-flag=--device=cuda --tolerance=0.2",
    Run};

}  // namespace sluice
