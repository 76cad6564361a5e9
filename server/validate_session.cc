#include "server/validate_session.h"

#include <xxhash.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/status.h"
#include "server/validate_fields.h"

namespace sluice {
namespace {

constexpr int32_t kDefaultPage = 100;
constexpr int32_t kMaxPage = 1000;
constexpr size_t kMaxLabels = 16;
constexpr size_t kMaxLabelKeyBytes = 64;
constexpr size_t kMaxLabelValueBytes = 256;

using Labels = std::map<std::string, std::string>;

template <typename Map>
Labels ParseLabels(absl::string_view field, const Map& message, FieldViolations* violations) {
  if (message.size() > kMaxLabels) {
    violations->Add(field, absl::StrCat("has ", message.size(), " entries, at most ", kMaxLabels,
                                        " are allowed"));
    return {};
  }
  for (const auto& [key, value] : message) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes) {
      violations->Add(field, absl::StrCat("has a key of ", key.size(), " bytes, must have 1 to ",
                                          kMaxLabelKeyBytes));
    }
    if (value.size() > kMaxLabelValueBytes) {
      violations->Add(field, absl::StrCat("has a value of ", value.size(), " bytes, at most ",
                                          kMaxLabelValueBytes, " are allowed"));
    }
  }
  return {message.begin(), message.end()};
}

SessionSettings ParseOptions(const v1::SessionOptions& message, FieldViolations* violations) {
  SessionSettings out;
  CheckSessionId("options.id", message.id(), violations);
  CheckSessionId("options.affinity", message.affinity(), violations);
  out.id = message.id();
  out.affinity = message.affinity();
  if (message.has_ttl()) {
    out.ttl = ParsePositive("options.ttl", message.ttl(), violations).value_or(out.ttl);
  }
  out.labels = ParseLabels("options.labels", message.labels(), violations);
  return out;
}

NamedSession ParseNamed(absl::string_view field, const std::string& id, const std::string& etag,
                        FieldViolations* violations) {
  CheckRequiredSessionId(field, id, violations);
  return {id, ParseEtag(etag)};
}

template <typename T>
absl::StatusOr<T> Result(const FieldViolations& violations, T value) {
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return value;
}

// Each part with its length, so that no two queries look the same.
std::string QueryHash(absl::string_view tenant, const Labels& labels, absl::string_view after_id) {
  std::string query;
  const auto add = [&](absl::string_view part) { absl::StrAppend(&query, part.size(), ":", part); };
  add(tenant);
  add(after_id);
  for (const auto& [key, value] : labels) {
    add(key);
    add(value);
  }
  return absl::StrFormat("%016x", XXH3_64bits(query.data(), query.size()));
}

}  // namespace

std::string PageToken(absl::string_view tenant, const Labels& labels, absl::string_view after_id) {
  return absl::WebSafeBase64Escape(absl::StrCat(QueryHash(tenant, labels, after_id), after_id));
}

absl::StatusOr<SessionSettings> ParseCreate(const v1::CreateSessionRequest& message,
                                            const RequestBounds& bounds) {
  absl::Status status = CheckModelName(message.model(), bounds);
  if (!status.ok()) return status;
  FieldViolations violations;
  SessionSettings settings = ParseOptions(message.options(), &violations);
  return Result(violations, std::move(settings));
}

absl::StatusOr<NamedSession> ParseGet(const v1::GetSessionRequest& message) {
  FieldViolations violations;
  NamedSession session = ParseNamed("id", message.id(), "", &violations);
  return Result(violations, std::move(session));
}

absl::StatusOr<ListQuery> ParseList(const v1::ListSessionsRequest& message,
                                    absl::string_view tenant) {
  FieldViolations violations;
  ListQuery query;
  query.page_size = message.page_size() == 0 ? kDefaultPage : message.page_size();
  if (message.page_size() < 0 || message.page_size() > kMaxPage) {
    violations.Add("page_size",
                   absl::StrCat("is ", message.page_size(), ", must be in [0, ", kMaxPage, "]"));
  }
  query.labels = ParseLabels("labels", message.labels(), &violations);
  if (!message.page_token().empty()) {
    std::string token;
    const size_t hash_size = QueryHash("", {}, "").size();
    if (absl::WebSafeBase64Unescape(message.page_token(), &token) && token.size() > hash_size) {
      query.after_id = token.substr(hash_size);
    }
    if (query.after_id.empty() ||
        PageToken(tenant, query.labels, query.after_id) != message.page_token()) {
      violations.Add("page_token", "is not the next_page_token of an answer to this query");
    }
  }
  return Result(violations, std::move(query));
}

absl::StatusOr<UpdateQuery> ParseUpdate(const v1::UpdateSessionRequest& message) {
  FieldViolations violations;
  UpdateQuery query;
  query.session =
      ParseNamed("session.id", message.session().id(), message.session().etag(), &violations);
  bool labels = !message.session().labels().empty();
  bool ttl = message.has_ttl();
  if (message.update_mask().paths_size() > 0) {
    labels = ttl = false;
    for (const std::string& path : message.update_mask().paths()) {
      if (path == "labels") {
        labels = true;
      } else if (path == "ttl") {
        ttl = true;
      } else {
        violations.Add("update_mask", "has a path that is neither labels nor ttl");
        break;
      }
    }
  }
  if (labels) {
    query.change.labels = ParseLabels("session.labels", message.session().labels(), &violations);
  }
  if (ttl && !message.has_ttl()) {
    violations.Add("ttl", "is required, as update_mask names it");
  } else if (ttl) {
    query.change.ttl = ParsePositive("ttl", message.ttl(), &violations);
  }
  return Result(violations, std::move(query));
}

absl::StatusOr<ForkQuery> ParseFork(const v1::ForkSessionRequest& message) {
  FieldViolations violations;
  ForkQuery query;
  query.session = ParseNamed("id", message.id(), message.etag(), &violations);
  query.settings = ParseOptions(message.options(), &violations);
  return Result(violations, std::move(query));
}

absl::StatusOr<NamedSession> ParseDelete(const v1::DeleteSessionRequest& message) {
  FieldViolations violations;
  NamedSession session = ParseNamed("id", message.id(), message.etag(), &violations);
  return Result(violations, std::move(session));
}

absl::StatusOr<NamedSession> ParseExport(const v1::ExportSessionRequest& message) {
  FieldViolations violations;
  NamedSession session = ParseNamed("id", message.id(), message.etag(), &violations);
  return Result(violations, std::move(session));
}

absl::StatusOr<SessionSettings> ParseImportOptions(const v1::SessionOptions& message) {
  FieldViolations violations;
  SessionSettings settings = ParseOptions(message, &violations);
  return Result(violations, std::move(settings));
}

}  // namespace sluice
