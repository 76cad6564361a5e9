// sluice score.
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/input.h"
#include "client/cli/text.h"
#include "client/cli/waiting.h"
#include "client/session_client.h"
#include "sluice/v1/score.pb.h"

namespace sluice {
namespace {

struct ScoreOptions {
  v1::ScoreRequest request;
  std::string file;
  bool json = false;
};

void AddScoreFlags(ScoreOptions* options, FlagSet* flags) {
  v1::ScoreRequest* request = &options->request;
  flags->Section("Input");
  flags->Add({"file", "FILE", "Reads the text from a file; - is standard input.",
              ToString([options](std::string text) { options->file = std::move(text); })});
  flags->Add({"token-ids", "ID,ID,...", "Takes the input as token ids, and adds nothing to them.",
              ToTokenIds([request](int32_t id) { request->mutable_tokens()->add_ids(id); })});
  flags->Add({"add-special-tokens", "", "Adds BOS and the like to a text. Default: true.",
              ToBool([request](bool value) { request->set_add_special_tokens(value); })});
  flags->Add({"model", "NAME", "Refuses to run on another model than this.",
              ToString([request](std::string text) { request->set_model(std::move(text)); })});
  flags->Add({"session", "ID", "Scores the input as a continuation of this session.",
              ToString([request](std::string text) { request->set_session_id(std::move(text)); })});
  flags->Section("Output");
  flags->Add({"summary", "", "Prints the totals alone: counts, log-probability, perplexity.",
              ToBool([request](bool value) { request->set_summary_only(value); })});
  flags->Add({"top-logprobs", "N", "Prints the N most likely tokens at each place. Default: 0.",
              ToInt32([request](int32_t value) { request->set_top_logprobs(value); })});
  flags->Add({"json", "", "Prints one JSON object per event and line, with the API's field names.",
              ToBool([options](bool value) { options->json = value; })});
}

template <typename Alternatives>
std::string Describe(const Alternatives& alternatives) {
  std::string text;
  for (const v1::Alternative& alternative : alternatives) {
    absl::StrAppendFormat(&text, " %d:%.4f", alternative.token_id(), alternative.logprob());
  }
  return text;
}

// A row per scored token. `pieces` are those of the whole input, or empty when they are not known.
class ScoreTable {
 public:
  // `first`: the first token that has a score.
  ScoreTable(std::vector<std::string> pieces, size_t first, std::ostream* out)
      : pieces_(std::move(pieces)), out_(*out), position_(first) {}

  void Print(const v1::PromptLogprobs& rows) {
    if (!std::exchange(has_heading_, true))
      out_ << "    position    token     logprob    rank  piece\n";
    for (const v1::TokenLogprob& row : rows.logprobs()) {
      const std::string piece =
          position_ < pieces_.size() ? EscapeControls(pieces_[position_]) : "";
      out_ << absl::StrFormat("%12d %8d %11.4f %7d  %s", position_, row.token_id(), row.logprob(),
                              row.rank(), piece);
      if (row.alternatives_size() > 0) out_ << "  |" << Describe(row.alternatives());
      out_ << "\n";
      ++position_;
    }
    out_.flush();
  }

  void Print(const v1::ScoreSummary& summary) {
    out_ << "tokens       " << WithCommas(summary.tokens()) << ", "
         << WithCommas(summary.scored_tokens()) << " scored\n"
         << absl::StrFormat("logprob      %.4f\n", summary.total_logprob());
    if (summary.scored_tokens() > 0) {
      const double mean = summary.total_logprob() / static_cast<double>(summary.scored_tokens());
      out_ << absl::StrFormat("perplexity   %.4f\n", std::exp(-mean));
    }
    if (summary.next_size() > 0) out_ << "next        " << Describe(summary.next()) << "\n";
  }

 private:
  const std::vector<std::string> pieces_;
  std::ostream& out_;
  size_t position_;
  bool has_heading_ = false;
};

// The number of tokens in a session's history.
absl::StatusOr<int64_t> Position(const Client& client, const Invocation& call,
                                 const std::string& session_id) {
  const absl::StatusOr<v1::Session> session = SessionClient(client).Get(session_id, call.Call());
  if (!session.ok()) return session.status();
  return session->position();
}

// The vocabulary's names of the input's tokens, which Score does not send.
absl::StatusOr<std::vector<std::string>> Pieces(const Client& client, const Invocation& call,
                                                const v1::ScoreRequest& request) {
  if (!request.session_id().empty()) return std::vector<std::string>();  // tokenized differently
  v1::TokenizeRequest tokenize;
  tokenize.set_text(request.text());
  tokenize.set_model(request.model());
  if (request.has_add_special_tokens()) {
    tokenize.set_add_special_tokens(request.add_special_tokens());
  }
  const absl::StatusOr<v1::TokenizeResponse> response = client.Tokenize(tokenize, call.Call());
  if (!response.ok()) return response.status();
  return std::vector<std::string>(response->pieces().begin(), response->pieces().end());
}

int Run(const Command& command, Invocation* call) {
  ScoreOptions options;
  FlagSet flags;
  AddScoreFlags(&options, &flags);
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  if (!options.request.has_tokens()) {
    absl::StatusOr<std::string> text = ReadText(call->args, options.file, io);
    if (!text.ok()) return UsageError(command, io, text.status().message());
    options.request.set_text(*std::move(text));
  } else if (!call->args.empty() || !options.file.empty()) {
    return UsageError(command, io, "the input is text or --token-ids, not both");
  }

  const Client client = call->MakeClient();
  std::vector<std::string> pieces;
  if (options.request.has_text() && !options.json && !options.request.summary_only()) {
    absl::StatusOr<std::vector<std::string>> known = Pieces(client, *call, options.request);
    if (!known.ok()) return CallFailed(io, known.status());
    pieces = *std::move(known);
  }
  size_t first = 1;  // the first token of all has nothing before it
  if (!options.request.session_id().empty()) {
    const absl::StatusOr<int64_t> position = Position(client, *call, options.request.session_id());
    if (!position.ok()) return CallFailed(io, position.status());
    if (*position > 0) first = 0;
  }
  ScoreTable table(std::move(pieces), first, &io.out);
  Waiting waiting(io);
  waiting.Say("computing");
  int64_t scored = 0;
  const absl::Status status =
      client.Score(options.request, call->Call(), [&](const v1::ScoreResponse& event) {
        scored += event.logprobs().logprobs_size();
        if (scored > 0) waiting.Say(absl::StrCat(WithCommas(scored), " tokens scored"));
        // The rows themselves show how far it is.
        if (io.out_is_terminal) waiting.Stop();
        if (options.json) {
          io.out << ToJson(event) << std::endl;
        } else if (event.has_logprobs()) {
          table.Print(event.logprobs());
        } else if (event.has_summary()) {
          table.Print(event.summary());
        }
        return io.out.good();
      });
  waiting.Stop();
  if (!status.ok()) return CallFailed(io, status);
  return io.out.good() ? kExitOk : kExitFailed;
}

}  // namespace

const Command kScoreCommand = {
    "score",
    "prints log-probabilities and perplexity of a text",
    "[FLAGS] [TEXT ... | --file=FILE | --token-ids=IDS]",
    "Prints a row per token, the first one excepted, then the totals: the log-probability is the\n"
    "model's own (natural logarithm), rank 1 is its first choice, and after | come its favourites\n"
    "as token:logprob. The text is of any length the daemon allows.",
    "  sluice score \"The cat sat on the mat.\"\n"
    "  sluice score --summary --file=book.txt\n"
    "  sluice score --session=story \" They lived happily ever after.\"\n"
    "  sluice score --json --top-logprobs=5 < text.txt",
    Run};

}  // namespace sluice
