// sluice model.
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/text.h"
#include "sluice/v1/model.pb.h"

namespace sluice {
namespace {

void PrintModel(const v1::Model& model, std::ostream& out) {
  const std::string eos =
      model.eos_token_ids().empty() ? "none" : absl::StrJoin(model.eos_token_ids(), " ");
  out << "name               " << model.name() << "\n"
      << "fingerprint        " << model.fingerprint() << "\n"
      << "architecture       " << model.architecture() << ", " << model.layers()
      << " layers, hidden " << WithCommas(model.hidden_size()) << ", vocabulary "
      << WithCommas(model.vocab_size()) << "\n"
      << "parameters         " << WithCommas(model.parameters()) << "\n"
      << "device             " << model.device() << ", weights " << model.weight_dtype()
      << ", state " << model.state_dtype() << "\n"
      << "state              " << WithCommas(model.state_bytes()) << " bytes a session"
      << (model.state_bytes_per_token() > 0
              ? absl::StrCat(" and ", WithCommas(model.state_bytes_per_token()),
                             " a token, at most ",
                             WithCommas(model.limits().max_attention_tokens()), " tokens")
              : std::string())
      << "\n"
      << "bos token          " << model.bos_token_id() << "\n"
      << "eos tokens         " << eos << "\n"
      << "numerics           " << model.numerics_id() << "\n"
      << "max prompt tokens  " << WithCommas(model.limits().max_prompt_tokens()) << "\n"
      << "max new tokens     " << WithCommas(model.limits().max_new_tokens()) << "\n"
      << "max sequences      " << WithCommas(model.limits().max_sequences()) << "\n"
      << "max stop strings   " << WithCommas(model.limits().max_stop_strings()) << "\n"
      << "max logprobs       " << WithCommas(model.limits().max_logprobs()) << "\n"
      << "max message bytes  " << WithCommas(model.limits().max_message_bytes()) << "\n";
}

int Run(const Command& command, Invocation* call) {
  v1::GetModelRequest request;
  bool json = false;
  FlagSet flags;
  flags.Add({"model", "NAME", "Asks for this model. Default: the one that is loaded.",
             ToString([&request](std::string text) { request.set_model(std::move(text)); })});
  flags.Add({"json", "", "Prints the answer as one JSON object, with the API's field names.",
             ToBool([&json](bool value) { json = value; })});
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  if (!call->args.empty()) return UsageError(command, call->io, "takes no arguments");

  const absl::StatusOr<v1::Model> model = call->MakeClient().GetModel(request, call->Call());
  if (!model.ok()) return CallFailed(call->io, model.status());
  if (json) {
    call->io.out << ToJson(*model) << "\n";
  } else {
    PrintModel(*model, call->io.out);
  }
  return kExitOk;
}

}  // namespace

const Command kModelCommand = {"model",
                               "prints what is loaded, and the limits on a request",
                               "[FLAGS]",
                               "Prints the model the daemon serves and its limits.",
                               "  sluice model\n"
                               "  sluice model --json | jq .limits.max_prompt_tokens",
                               Run};

}  // namespace sluice
