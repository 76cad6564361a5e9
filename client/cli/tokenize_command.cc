// sluice tokenize and sluice detokenize.
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/input.h"
#include "client/cli/long_text.h"
#include "client/cli/text.h"
#include "client/error.h"
#include "client/open_file.h"
#include "sluice/v1/tokens.pb.h"

namespace sluice {
namespace {

struct TextOptions {
  std::string file;
  std::string model;
  bool json = false;
};

void AddTextFlags(TextOptions* options, FlagSet* flags) {
  flags->Add({"file", "FILE", "Reads the input from a file; - is standard input.",
              ToString([options](std::string text) { options->file = std::move(text); })});
  flags->Add({"model", "NAME", "Refuses to run on another model than this.",
              ToString([options](std::string text) { options->model = std::move(text); })});
  flags->Add({"json", "", "Prints the answer as one JSON object, with the API's field names.",
              ToBool([options](bool value) { options->json = value; })});
}

// Prints the tokens of what `in` holds, part by part.
int PrintTokens(const Client& client, const Invocation& call, const v1::TokenizeRequest& request,
                std::istream* in, bool json, bool pieces) {
  std::ostream& out = call.io.out;
  bool first = true;
  const absl::Status status =
      TokenizeAll(client, call.Call(), request, in, [&](const v1::TokenizeResponse& part) {
        if (json) {
          out << ToJson(part) << "\n";
        } else if (pieces) {
          for (int i = 0; i < part.token_ids_size(); ++i) {
            out << part.token_ids(i) << "\t"
                << (i < part.pieces_size() ? EscapeControls(part.pieces(i)) : "") << "\n";
          }
        } else {
          out << (first || part.token_ids().empty() ? "" : " ")
              << absl::StrJoin(part.token_ids(), " ");
        }
        first = false;
        return out.good();
      });
  if (!json && !pieces && !first) out << "\n";
  if (status.ok()) return kExitOk;
  // The daemon's errors have a reason; others are about the text.
  const bool bad_text = absl::IsInvalidArgument(status) && ErrorReason(status).empty();
  return bad_text ? UsageError(kTokenizeCommand, call.io, status.message())
                  : CallFailed(call.io, status);
}

int RunTokenize(const Command& command, Invocation* call) {
  TextOptions options;
  v1::TokenizeRequest request;
  bool pieces = false;
  FlagSet flags;
  AddTextFlags(&options, &flags);
  flags.Add({"add-special-tokens", "", "Adds BOS and the like. Default: true.",
             ToBool([&request](bool value) { request.set_add_special_tokens(value); })});
  flags.Add({"pieces", "", "Prints one token a line: its id and the vocabulary's name for it.",
             ToBool([&pieces](bool value) { pieces = value; })});
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  request.set_model(options.model);
  const Client client = call->MakeClient();
  if (!call->args.empty() && call->args != std::vector<std::string>{"-"}) {
    const absl::StatusOr<std::string> text = ReadText(call->args, options.file, io);
    if (!text.ok()) return UsageError(command, io, text.status().message());
    std::istringstream in(*text);
    return PrintTokens(client, *call, request, &in, options.json, pieces);
  }
  std::ifstream file;
  if (!options.file.empty() && options.file != "-") {
    const absl::Status opened = OpenFile(options.file, &file);
    if (!opened.ok()) return UsageError(command, io, opened.message());
  } else if (io.in_is_terminal) {
    io.err << "(reading text from the terminal; end it with Ctrl-D)\n";
  }
  std::istream& in = file.is_open() ? static_cast<std::istream&>(file) : io.in;
  return PrintTokens(client, *call, request, &in, options.json, pieces);
}

int RunDetokenize(const Command& command, Invocation* call) {
  TextOptions options;
  FlagSet flags;
  AddTextFlags(&options, &flags);
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  const absl::StatusOr<std::string> ids = ReadText(call->args, options.file, io);
  if (!ids.ok()) return UsageError(command, io, ids.status().message());
  v1::DetokenizeRequest request;
  request.set_model(options.model);
  const absl::Status parsed =
      ParseTokenIds(*ids, [&request](int32_t id) { request.add_token_ids(id); });
  if (!parsed.ok()) return UsageError(command, io, parsed.message());

  const absl::StatusOr<v1::DetokenizeResponse> response =
      call->MakeClient().Detokenize(request, call->Call());
  if (!response.ok()) return CallFailed(io, response.status());
  if (options.json) {
    io.out << ToJson(*response) << "\n";
  } else {
    io.out << (io.out_is_terminal ? ForTerminal(response->text()) : response->text()) << "\n";
  }
  return kExitOk;
}

}  // namespace

const Command kTokenizeCommand = {
    "tokenize",
    "prints the token ids of a text",
    "[FLAGS] [TEXT ... | --file=FILE]",
    "Prints the ids on one line, ready for `sluice detokenize`. The text may have any size: above\n"
    "256 KiB it is read and sent in parts, and --json prints an object for each.",
    "  sluice tokenize \"Hello there\"\n"
    "  sluice tokenize --pieces --noadd-special-tokens \"Hello there\"\n"
    "  sluice tokenize < book.txt | wc -w",
    RunTokenize};

const Command kDetokenizeCommand = {
    "detokenize",
    "prints the text of token ids",
    "[FLAGS] [ID ... | --file=FILE]",
    "Prints the text of token ids, which spaces, commas or line breaks separate.",
    "  sluice detokenize 1 523 42\n"
    "  sluice tokenize \"there and back\" | sluice detokenize",
    RunDetokenize};

}  // namespace sluice
