// sluice tokenize and sluice detokenize.
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/input.h"
#include "client/cli/text.h"
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
  absl::StatusOr<std::string> text = ReadText(call->args, options.file, io);
  if (!text.ok()) return UsageError(command, io, text.status().message());
  request.set_text(*std::move(text));
  request.set_model(options.model);

  const absl::StatusOr<v1::TokenizeResponse> response =
      call->MakeClient().Tokenize(request, call->Call());
  if (!response.ok()) return CallFailed(io, response.status());
  if (options.json) {
    io.out << ToJson(*response) << "\n";
  } else if (pieces) {
    for (int i = 0; i < response->token_ids_size(); ++i) {
      io.out << response->token_ids(i) << "\t"
             << (i < response->pieces_size() ? EscapeControls(response->pieces(i)) : "") << "\n";
    }
  } else {
    io.out << absl::StrJoin(response->token_ids(), " ") << "\n";
  }
  return kExitOk;
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
    "Prints the ids on one line, ready for `sluice detokenize`.",
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
