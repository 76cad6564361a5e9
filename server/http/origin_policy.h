// Keeps pages of other origins, and names that an attacker's DNS points here, from using the port
// through the browser of somebody who may.
#ifndef SLUICE_SERVER_HTTP_ORIGIN_POLICY_H_
#define SLUICE_SERVER_HTTP_ORIGIN_POLICY_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/http/http_error.h"
#include "server/http/http_message.h"

namespace sluice {

// Immutable: any thread.
class OriginPolicy {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  // Lets pages of this port's own origin in, and nobody's Host be checked.
  OriginPolicy() = default;

  // `origins`: what --cors_origins has, "https://a.example,http://localhost:3000" or "*".
  // INVALID_ARGUMENT names the entry that is no origin.
  static absl::StatusOr<OriginPolicy> Parse(absl::string_view origins);
  // Refuses requests for another Host than loopback's names and `hosts`, "a.example,b".
  void CheckHosts(absl::string_view hosts);

  // Why the request is refused, with status 403.
  std::optional<HttpError> Check(const HttpHead& head) const;
  // The fields that let the page that asks read the answer; none for this port's own page.
  Fields AnswerFields(const HttpHead& head) const;

  // True for a browser's question whether a page may ask.
  static bool IsPreflight(const HttpHead& head);
  // Its answer, beside AnswerFields. `methods`: what the path takes, "GET, HEAD".
  static HttpReply Preflight(const HttpHead& head, absl::string_view methods);

 private:
  bool Allows(absl::string_view origin) const;

  bool any_ = false;
  absl::flat_hash_set<std::string> origins_;
  bool checks_hosts_ = false;
  absl::flat_hash_set<std::string> hosts_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_ORIGIN_POLICY_H_
