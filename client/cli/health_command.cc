// sluice health.
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "client/cli/text.h"
#include "grpc/health/v1/health.pb.h"

namespace sluice {
namespace {

using HealthResponse = grpc::health::v1::HealthCheckResponse;

void PrintHealth(Client::HealthStatus status, bool json, std::ostream& out) {
  HealthResponse response;
  response.set_status(status);
  out << (json ? ToJson(response) : HealthResponse::ServingStatus_Name(status)) << std::endl;
}

int Run(const Command& command, Invocation* call) {
  std::string service;
  bool watch = false;
  bool json = false;
  FlagSet flags;
  flags.Add({"service", "NAME", "Asks about one service. Default: the daemon as a whole.",
             ToString([&service](std::string text) { service = std::move(text); })});
  flags.Add({"watch", "", "Prints the status now and at every change, until Ctrl-C.",
             ToBool([&watch](bool value) { watch = value; })});
  flags.Add({"json", "", "Prints JSON objects, one a line.",
             ToBool([&json](bool value) { json = value; })});
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  if (!call->args.empty()) return UsageError(command, io, "takes no arguments");

  const Client client = call->MakeClient();
  if (watch) {
    const absl::Status status =
        client.WatchHealth(service, call->Call(), [&](Client::HealthStatus now) {
          PrintHealth(now, json, io.out);
          return io.out.good();
        });
    return status.ok() ? kExitOk : CallFailed(io, status);
  }
  const absl::StatusOr<Client::HealthStatus> health = client.CheckHealth(service, call->Call());
  if (!health.ok()) return CallFailed(io, health.status());
  PrintHealth(*health, json, io.out);
  return *health == HealthResponse::SERVING ? kExitOk : kExitFailed;
}

}  // namespace

const Command kHealthCommand = {
    "health",
    "says whether the daemon serves",
    "[FLAGS]",
    "Asks grpc.health.v1.Health. Exits with 0 when the answer is SERVING, with 1 otherwise.",
    "  sluice health\n"
    "  sluice health --watch --service=sluice.v1.InferenceService",
    Run};

}  // namespace sluice
