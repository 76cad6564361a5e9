#include "client/cli/generate_call.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cli/generate_printer.h"
#include "client/cli/text.h"
#include "client/cli/waiting.h"

namespace sluice {

int CallGenerate(const Invocation& call, const v1::GenerateRequest& request,
                 const GenerateOutput& output) {
  const Io& io = call.io;
  GeneratePrinter printer(request.has_n() ? request.n() : 1, output.json, io);
  Waiting waiting(io);
  waiting.Say("waiting for the daemon");
  const absl::Status status =
      call.MakeClient().Generate(request, call.Call(), [&](const v1::GenerateResponse& event) {
        if (event.has_started()) {
          waiting.Say(absl::StrCat("computing a prompt of ",
                                   WithCommas(event.started().prompt_tokens()), " tokens"));
        } else {
          waiting.Stop();
        }
        printer.Print(event);
        return io.out.good();
      });
  waiting.Stop();
  printer.End(output.stats.value_or(io.out_is_terminal && io.err_is_terminal && !output.json));
  if (!status.ok()) return CallFailed(io, status);
  return printer.failed() || !io.out.good() ? kExitFailed : kExitOk;
}

}  // namespace sluice
