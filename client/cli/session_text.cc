#include "client/cli/session_text.h"

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/cli/text.h"
#include "client/proto_time.h"

namespace sluice {
namespace {

std::string ShowTime(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", FromProto(time), absl::LocalTimeZone());
}

// Labels come from the caller, and still are not trusted with a terminal.
std::string ShowLabels(const LabelMap& labels) {
  const std::map<std::string, std::string> ordered(labels.begin(), labels.end());
  return EscapeControls(absl::StrJoin(ordered, " ", absl::PairFormatter("=")));
}

std::string ShowState(const v1::Session& session) {
  if (session.position() == 0) return "none yet";
  return absl::StrCat(WithCommas(session.state_bytes()), " bytes, ", TierName(session.tier()),
                      session.durable() ? ", safe on disk" : "");
}

}  // namespace

std::string TierName(v1::StateTier tier) {
  if (tier == v1::STATE_TIER_UNSPECIFIED) return "none";
  return absl::AsciiStrToLower(absl::StripPrefix(v1::StateTier_Name(tier), "STATE_TIER_"));
}

std::string DescribeSession(const v1::Session& session) {
  std::string out;
  const auto line = [&](absl::string_view name, absl::string_view value) {
    if (!value.empty()) absl::StrAppendFormat(&out, "%-13s%s\n", name, value);
  };
  line("id", session.id());
  line("etag", session.etag());
  line("position", absl::StrCat(WithCommas(session.position()), " tokens"));
  line("state", ShowState(session));
  line("busy", session.busy() ? "a call is writing to it" : "no");
  line("affinity", session.affinity());
  line("last request", session.last_request_id());
  line("model", session.model_fingerprint());
  line("numerics", session.numerics_id());
  line("created", ShowTime(session.create_time()));
  line("used", ShowTime(session.update_time()));
  line("expires", session.has_expire_time() ? ShowTime(session.expire_time()) : "never");
  line("labels", ShowLabels(session.labels()));
  return out;
}

std::string SessionHeading() {
  return absl::StrFormat("%-32s  %10s  %-6s  %-19s  %s\n", "id", "tokens", "tier", "used",
                         "labels");
}

std::string SessionRow(const v1::Session& session) {
  return absl::StrCat(
      absl::StripTrailingAsciiWhitespace(absl::StrFormat(
          "%-32s  %10s  %-6s  %-19s  %s", session.id(), WithCommas(session.position()),
          TierName(session.tier()), ShowTime(session.update_time()), ShowLabels(session.labels()))),
      "\n");
}

void AddLabelFlag(absl::string_view help, LabelMap* labels, FlagSet* flags) {
  flags->Add({"label", "KEY=VALUE", std::string(help), [labels](absl::string_view text) {
                const std::pair<absl::string_view, absl::string_view> parts =
                    absl::StrSplit(text, absl::MaxSplits('=', 1));
                if (parts.first.empty() || parts.first.size() == text.size()) {
                  return absl::InvalidArgumentError("must be KEY=VALUE");
                }
                (*labels)[std::string(parts.first)] = std::string(parts.second);
                return absl::OkStatus();
              }});
}

void AddSessionOptionFlags(v1::SessionOptions* options, FlagSet* flags) {
  flags->Section("New session");
  flags->Add(
      {"ttl", "DURATION",
       "Ends the session when it is unused for this long. Default: the daemon's --session_ttl.",
       ToDuration([options](absl::Duration ttl) { *options->mutable_ttl() = ToProto(ttl); })});
  flags->Add({"affinity", "TEXT",
              "Sets the metadata x-sluice-affinity of the session's calls. Default: its id, for a "
              "fork its parent's.",
              ToString([options](std::string text) { options->set_affinity(std::move(text)); })});
  AddLabelFlag("Adds a label. The flag may be repeated.", options->mutable_labels(), flags);
}

}  // namespace sluice
