// Sessions as people read them, and the flags that describe one.
#ifndef SLUICE_CLIENT_CLI_SESSION_TEXT_H_
#define SLUICE_CLIENT_CLI_SESSION_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cli/flags.h"
#include "google/protobuf/map.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

using LabelMap = google::protobuf::Map<std::string, std::string>;

// "device", "host", "disk"; "none" where there is no state.
std::string TierName(v1::StateTier tier);

// All of a session, a line a field.
std::string DescribeSession(const v1::Session& session);
// One line of a table, and its heading.
std::string SessionRow(const v1::Session& session);
std::string SessionHeading();

// --label KEY=VALUE, which may be repeated.
void AddLabelFlag(absl::string_view help, LabelMap* labels, FlagSet* flags);
// --affinity, --ttl and --label of a new session.
void AddSessionOptionFlags(v1::SessionOptions* options, FlagSet* flags);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_SESSION_TEXT_H_
