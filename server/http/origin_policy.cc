#include "server/http/origin_policy.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sluice {
namespace {

constexpr size_t kShownBytes = 64;
// Seconds for which a browser need not ask again.
constexpr char kMaxAge[] = "600";

// "https://a.example" as its parts.
struct Origin {
  absl::string_view scheme;
  absl::string_view host;
};

std::optional<Origin> ParseOrigin(absl::string_view text) {
  const size_t end = text.find("://");
  if (end == absl::string_view::npos) return std::nullopt;
  const Origin out = {text.substr(0, end), text.substr(end + 3)};
  const auto is_host = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._:[]", c);
  };
  const bool scheme =
      !out.scheme.empty() && std::all_of(out.scheme.begin(), out.scheme.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-';
      });
  if (!scheme || out.host.empty() || !std::all_of(out.host.begin(), out.host.end(), is_host)) {
    return std::nullopt;
  }
  return out;
}

// The name alone if `host` names the port that its scheme has anyway.
absl::string_view WithoutDefaultPort(absl::string_view scheme, absl::string_view host) {
  if (absl::EqualsIgnoreCase(scheme, "https")) {
    absl::ConsumeSuffix(&host, ":443");
  } else {
    absl::ConsumeSuffix(&host, ":80");
  }
  return host;
}

// "localhost:8080" -> "localhost", "[::1]:8080" -> "[::1]".
absl::string_view WithoutPort(absl::string_view host) {
  const size_t bracket = host.find(']');
  const size_t colon = host.find(':', bracket == absl::string_view::npos ? 0 : bracket);
  return host.substr(0, colon);
}

bool IsLoopbackName(absl::string_view name) {
  if (absl::EqualsIgnoreCase(name, "localhost") || absl::EndsWithIgnoreCase(name, ".localhost") ||
      name == "[::1]") {
    return true;
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
  return parts.size() == 4 && parts[0] == "127" &&
         std::all_of(parts.begin(), parts.end(), [](absl::string_view part) {
           return !part.empty() && part.size() <= 3 &&
                  std::all_of(part.begin(), part.end(), absl::ascii_isdigit);
         });
}

// The hosts that a request names: by its field, and by its target where that is a whole URI.
std::vector<absl::string_view> HostsOf(const HttpHead& head) {
  std::vector<absl::string_view> out = head.FindAll("host");
  absl::string_view target = head.target;
  if (!absl::StartsWith(target, "/") && absl::StrContains(target, "://")) {
    target.remove_prefix(target.find("://") + 3);
    out.push_back(target.substr(0, target.find_first_of("/?#")));
  }
  return out;
}

bool IsOwn(const HttpHead& head, absl::string_view origin) {
  const std::optional<Origin> parsed = ParseOrigin(origin);
  const absl::string_view host = head.Find("host");
  return parsed.has_value() && !host.empty() &&
         absl::EqualsIgnoreCase(WithoutDefaultPort(parsed->scheme, parsed->host),
                                WithoutDefaultPort(parsed->scheme, host));
}

}  // namespace

absl::StatusOr<OriginPolicy> OriginPolicy::Parse(absl::string_view origins) {
  OriginPolicy out;
  for (const absl::string_view entry : absl::StrSplit(origins, ',', absl::SkipWhitespace())) {
    const absl::string_view origin = absl::StripAsciiWhitespace(entry);
    if (origin == "*") {
      out.any_ = true;
    } else if (ParseOrigin(origin).has_value()) {
      out.origins_.insert(absl::AsciiStrToLower(origin));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("'", absl::CHexEscape(origin.substr(0, kShownBytes)),
                       "' is no origin such as https://a.example or http://localhost:3000"));
    }
  }
  return out;
}

void OriginPolicy::CheckHosts(absl::string_view hosts) {
  checks_hosts_ = true;
  for (const absl::string_view host : absl::StrSplit(hosts, ',', absl::SkipWhitespace())) {
    hosts_.insert(absl::AsciiStrToLower(absl::StripAsciiWhitespace(host)));
  }
}

std::optional<HttpError> OriginPolicy::Check(const HttpHead& head) const {
  if (checks_hosts_) {
    for (const absl::string_view host : HostsOf(head)) {
      const absl::string_view name = WithoutPort(host);
      if (name.empty() || IsLoopbackName(name) || hosts_.contains(absl::AsciiStrToLower(name)))
        continue;
      return BadRequest(403,
                        absl::StrCat("the Host '", absl::CHexEscape(name.substr(0, kShownBytes)),
                                     "' is neither a name of loopback nor in --http_hosts"),
                        "host_not_allowed");
    }
  }
  for (const absl::string_view origin : head.FindAll("origin")) {
    if (IsOwn(head, origin) || Allows(origin)) continue;
    return BadRequest(403,
                      absl::StrCat("the Origin '", absl::CHexEscape(origin.substr(0, kShownBytes)),
                                   "' is not in --cors_origins"),
                      "origin_not_allowed");
  }
  return std::nullopt;
}

bool OriginPolicy::Allows(absl::string_view origin) const {
  return any_ || origins_.contains(absl::AsciiStrToLower(origin));
}

OriginPolicy::Fields OriginPolicy::AnswerFields(const HttpHead& head) const {
  const absl::string_view origin = head.Find("origin");
  if (origin.empty() || !Allows(origin)) return {};
  Fields out;
  // A list of origins may have credentials; everybody may not.
  if (origins_.contains(absl::AsciiStrToLower(origin))) {
    out.emplace_back("Access-Control-Allow-Origin", origin);
    out.emplace_back("Access-Control-Allow-Credentials", "true");
    out.emplace_back("Vary", "Origin");
  } else {
    out.emplace_back("Access-Control-Allow-Origin", "*");
  }
  out.emplace_back("Access-Control-Expose-Headers",
                   "x-request-id, x-session-id, x-session-position, x-sluice-ignored-fields, ETag, "
                   "Retry-After, retry-after-ms");
  return out;
}

bool OriginPolicy::IsPreflight(const HttpHead& head) {
  return head.method == "OPTIONS" && !head.Find("origin").empty() &&
         !head.Find("access-control-request-method").empty();
}

HttpReply OriginPolicy::Preflight(const HttpHead& head, absl::string_view methods) {
  HttpReply reply;
  reply.content_type = "text/plain; charset=utf-8";
  reply.headers.emplace_back("Access-Control-Allow-Methods", methods);
  // Each header is allowed: what it says is checked with the call.
  const absl::string_view asked = head.Find("access-control-request-headers");
  if (!asked.empty()) reply.headers.emplace_back("Access-Control-Allow-Headers", asked);
  reply.headers.emplace_back("Access-Control-Max-Age", kMaxAge);
  return reply;
}

}  // namespace sluice
