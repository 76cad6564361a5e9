// sluice generate.
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "client/cli/generate_call.h"
#include "client/cli/generate_flags.h"
#include "client/cli/input.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {
namespace {

struct GenerateOptions {
  v1::GenerateRequest request;
  std::string prompt_file;
  bool json = false;
  std::optional<bool> stats;
};

void AddPromptFlags(GenerateOptions* options, FlagSet* flags) {
  v1::GenerateRequest* request = &options->request;
  flags->Section("Prompt");
  flags->Add({"prompt-file", "FILE", "Reads the prompt from a file; - is standard input.",
              ToString([options](std::string text) { options->prompt_file = std::move(text); })});
  flags->Add({"token-ids", "ID,ID,...", "Takes the prompt as token ids, and adds nothing to them.",
              ToTokenIds([request](int32_t id) { request->mutable_tokens()->add_ids(id); })});
  flags->Add({"add-special-tokens", "", "Adds BOS and the like to a text prompt. Default: true.",
              ToBool([request](bool value) { request->set_add_special_tokens(value); })});
  flags->Add({"model", "NAME", "Refuses to run on another model than this.",
              ToString([request](std::string text) { request->set_model(std::move(text)); })});
  flags->Add({"request-id", "ID", "Names this call in the daemon's log.",
              ToString([request](std::string text) { request->set_request_id(std::move(text)); })});
  flags->Add({"n", "N", "Generates N sequences from the prompt. Default: 1.",
              ToInt32([request](int32_t value) { request->set_n(value); })});
  flags->Add({"priority", "N",
              "Sets the place in the queue, -100 to 100; a higher number leaves first. Default: 0.",
              ToInt32([request](int32_t value) { request->set_priority(value); })});
  flags->Add({"bypass-prefix-cache", "", "Computes the whole prompt, and uses no cached prefix.",
              ToBool([request](bool value) { request->set_bypass_prefix_cache(value); })});
}

void AddOutputFlags(GenerateOptions* options, FlagSet* flags) {
  v1::OutputOptions* output = options->request.mutable_output();
  flags->Section("Output");
  flags->Add({"json", "", "Prints one JSON object per event and line, with the API's field names.",
              ToBool([options](bool value) { options->json = value; })});
  flags->Add({"stats", "",
              "Ends with a line of counts and times on stderr. Default: on a terminal.",
              ToBool([options](bool value) { options->stats = value; })});
  flags->Add({"echo", "", "Prints the prompt first.",
              ToBool([output](bool value) { output->set_echo(value); })});
  flags->Add({"output-token-ids", "", "Adds the token ids of the output (with --json).",
              ToBool([output](bool value) { output->set_token_ids(value); })});
  flags->Add({"logprobs", "N",
              "Adds log-probabilities of the output, with N alternatives each (with --json).",
              ToInt32([output](int32_t value) { output->set_logprobs(value); })});
  flags->Add({"prompt-logprobs", "", "Adds log-probabilities of the prompt (with --json).",
              ToBool([output](bool value) { output->set_prompt_logprobs(value); })});
  flags->Add({"text", "", "Prints the text of the output; --notext leaves it out (with --json).",
              ToBool([output](bool value) { output->set_text(value); })});
}

bool NeedsJson(const v1::OutputOptions& output) {
  return output.token_ids() || output.has_logprobs() || output.prompt_logprobs() ||
         (output.has_text() && !output.text());
}

int Run(const Command& command, Invocation* call) {
  GenerateOptions options;
  FlagSet flags;
  AddPromptFlags(&options, &flags);
  AddSessionFlags(&options.request, &flags);
  AddSamplingFlags(options.request.mutable_sampling(), &flags);
  AddStopFlags(options.request.mutable_stop(), &flags);
  AddOutputFlags(&options, &flags);
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  if (!options.json && NeedsJson(options.request.output())) {
    return UsageError(command, io,
                      "--output-token-ids, --logprobs, --prompt-logprobs and --notext need --json");
  }
  // A session can go on from where it is.
  const bool prompt_optional = !options.request.session_id().empty();
  const bool no_prompt = call->args.empty() && options.prompt_file.empty();
  if (!options.request.has_tokens()) {
    std::string prompt;
    if (!prompt_optional || !no_prompt || !io.in_is_terminal) {
      absl::StatusOr<std::string> text = ReadText(call->args, options.prompt_file, io);
      if (!text.ok()) return UsageError(command, io, text.status().message());
      prompt = *std::move(text);
    }
    if (!prompt_optional || !prompt.empty()) options.request.set_text(std::move(prompt));
  } else if (!no_prompt) {
    return UsageError(command, io, "a prompt is text or --token-ids, not both");
  }

  return CallGenerate(*call, options.request, {options.json, options.stats});
}

}  // namespace

const Command kGenerateCommand = {
    "generate",
    "continues a text, printing it as it is generated",
    "[FLAGS] [PROMPT ... | --prompt-file=FILE | --token-ids=IDS]",
    "Continues the prompt: the arguments joined by spaces, a file, token ids, or standard input.\n"
    "With --session the prompt continues a session, and may be missing. Only what is generated is\n"
    "printed. Ctrl-C ends the call and keeps what is there; a session is then left as it was.",
    "  sluice generate \"Once upon a time\"\n"
    "  sluice generate --temperature=0.8 --top-p=0.95 --max-new-tokens=100 \"It was a dark\"\n"
    "  sluice generate --n=3 --seed=7 --stop='\\n' \"My name is\"\n"
    "  sluice generate --session=story --max-new-tokens=60 \" And then\"\n"
    "  sluice generate --json --logprobs=2 --temperature=0 < prompt.txt",
    Run};

}  // namespace sluice
