#include "server/http/session_json.h"

#include <cmath>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/http/query_string.h"
#include "server/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr char kLabels[] = "labels.";
constexpr int kMaxDepth = 8;
constexpr double kMaxTtl = 315576000000;  // google.protobuf.Duration's

// ---- What goes out ----

std::string Text(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

OrderedJson TierName(v1::StateTier tier) {
  switch (tier) {
    case v1::STATE_TIER_DEVICE:
      return "device";
    case v1::STATE_TIER_HOST:
      return "host";
    case v1::STATE_TIER_DISK:
      return "disk";
    default:
      return nullptr;
  }
}

OrderedJson ToJson(const v1::Session& session) {
  OrderedJson out = {{"id", session.id()}, {"object", "session"}};
  if (session.unreadable()) out["unreadable"] = true;
  out["etag"] = session.etag();
  out["position"] = session.position();
  out["affinity"] = session.affinity();
  out["model_fingerprint"] = session.model_fingerprint();
  out["numerics_id"] = session.numerics_id();
  out["tier"] = TierName(session.tier());
  out["busy"] = session.busy();
  out["state_bytes"] = session.state_bytes();
  out["durable"] = session.durable();
  out["last_request_id"] = session.last_request_id();
  out["created_at"] = session.create_time().seconds();
  out["updated_at"] = session.update_time().seconds();
  out["expires_at"] = session.has_expire_time() ? OrderedJson(session.expire_time().seconds())
                                                : OrderedJson(nullptr);
  OrderedJson labels = OrderedJson::object();
  for (const auto& [key, value] :
       std::map<std::string, std::string>(session.labels().begin(), session.labels().end())) {
    labels[key] = value;
  }
  out["labels"] = std::move(labels);
  return out;
}

// ---- What comes in ----

void SetTtl(double seconds, FieldViolations* violations, google::protobuf::Duration* out) {
  if (!(std::abs(seconds) <= kMaxTtl)) {
    return violations->Add("ttl", "must be a number of seconds above 0");
  }
  const double whole = std::floor(seconds);
  out->set_seconds(static_cast<int64_t>(whole));
  // Less than a nanosecond is none.
  out->set_nanos(static_cast<int32_t>((seconds - whole) * 1e9));
}

// The fields of a body. Each getter leaves `out` alone where the field is absent or null, and notes
// one of the wrong type.
class Body {
 public:
  Body(const Json& json, FieldViolations* violations) : json_(json), violations_(violations) {}

  void RefuseOthers(std::initializer_list<absl::string_view> known) const {
    for (auto it = json_.begin(); it != json_.end(); ++it) {
      bool found = false;
      for (const absl::string_view name : known) found |= it.key() == name;
      if (!found) violations_->Add(it.key(), "is not a field of this request");
    }
  }

  void String(const char* name, std::string* out) const {
    const Json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return violations_->Add(name, "must be a string");
    *out = value->get<std::string>();
  }

  template <typename Message>
  void Ttl(Message* out) const {
    const Json* value = Find("ttl");
    if (value == nullptr) return;
    if (!value->is_number()) return violations_->Add("ttl", "must be a number of seconds above 0");
    SetTtl(value->get<double>(), violations_, out->mutable_ttl());
  }

  // True if there are labels.
  template <typename Map>
  bool Labels(Map* out) const {
    const Json* value = Find("labels");
    if (value == nullptr) return false;
    bool right = value->is_object();
    for (auto it = value->begin(); right && it != value->end(); ++it) {
      right = it.value().is_string();
      if (right) (*out)[it.key()] = it.value().template get<std::string>();
    }
    if (!right) violations_->Add("labels", "must be an object of strings");
    return right;
  }

  void Options(v1::SessionOptions* out) const {
    String("id", out->mutable_id());
    String("affinity", out->mutable_affinity());
    Ttl(out);
    Labels(out->mutable_labels());
  }

 private:
  const Json* Find(const char* name) const {
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  const Json& json_;
  FieldViolations* const violations_;
};

absl::StatusOr<Json> ParseBody(absl::string_view body) {
  if (body.empty()) return Json::object();
  bool deep = false;
  const Json json = Json::parse(
      body.begin(), body.end(),
      [&](int depth, Json::parse_event_t, const Json&) {
        deep |= depth > kMaxDepth;
        return !deep;
      },
      /*allow_exceptions=*/false);
  if (deep || json.is_discarded() || !json.is_object() || absl::StrContains(body, '\0')) {
    return absl::InvalidArgumentError("the body must be a JSON object, in UTF-8");
  }
  return json;
}

template <typename T>
absl::StatusOr<T> Result(const FieldViolations& violations, T value) {
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return value;
}

// Has `take` use each pair of the query; false: it knows none of that name.
template <typename Take>
absl::Status ReadQuery(absl::string_view target, FieldViolations* violations, Take take) {
  const auto query = ParseQuery(target);
  if (!query.ok()) return query.status();
  for (const auto& [name, value] : *query) {
    if (!take(name, value)) violations->Add(name, "is not a parameter of this path");
  }
  return absl::OkStatus();
}

template <typename Map>
bool TakeLabel(const std::string& name, const std::string& value, Map* out) {
  if (!absl::StartsWith(name, kLabels)) return false;
  (*out)[name.substr(sizeof(kLabels) - 1)] = value;
  return true;
}

}  // namespace

std::string SessionJson(const v1::Session& session) { return Text(ToJson(session)); }

std::string SessionListJson(const v1::ListSessionsResponse& page) {
  OrderedJson data = OrderedJson::array();
  for (const v1::Session& session : page.sessions()) data.push_back(ToJson(session));
  const bool more = !page.next_page_token().empty();
  return Text({{"object", "list"},
               {"data", std::move(data)},
               {"has_more", more},
               {"next_page_token", more ? OrderedJson(page.next_page_token()) : nullptr}});
}

std::string DeletedSessionJson(absl::string_view id) {
  return Text({{"id", std::string(id)}, {"object", "session.deleted"}, {"deleted", true}});
}

absl::StatusOr<v1::CreateSessionRequest> ParseCreateSession(absl::string_view body) {
  const absl::StatusOr<Json> json = ParseBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const Body fields(*json, &violations);
  v1::CreateSessionRequest out;
  fields.RefuseOthers({"id", "affinity", "ttl", "labels", "model"});
  fields.String("model", out.mutable_model());
  fields.Options(out.mutable_options());
  return Result(violations, std::move(out));
}

absl::StatusOr<v1::UpdateSessionRequest> ParseUpdateSession(absl::string_view body) {
  const absl::StatusOr<Json> json = ParseBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const Body fields(*json, &violations);
  v1::UpdateSessionRequest out;
  fields.RefuseOthers({"ttl", "labels", "etag"});
  fields.String("etag", out.mutable_session()->mutable_etag());
  fields.Ttl(&out);
  if (out.has_ttl()) out.mutable_update_mask()->add_paths("ttl");
  if (fields.Labels(out.mutable_session()->mutable_labels())) {
    out.mutable_update_mask()->add_paths("labels");
  }
  return Result(violations, std::move(out));
}

absl::StatusOr<v1::ForkSessionRequest> ParseForkSession(absl::string_view body) {
  const absl::StatusOr<Json> json = ParseBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const Body fields(*json, &violations);
  v1::ForkSessionRequest out;
  fields.RefuseOthers({"id", "affinity", "ttl", "labels", "etag"});
  fields.String("etag", out.mutable_etag());
  fields.Options(out.mutable_options());
  return Result(violations, std::move(out));
}

absl::StatusOr<v1::ListSessionsRequest> ParseListSessions(absl::string_view target) {
  FieldViolations violations;
  v1::ListSessionsRequest out;
  const absl::Status status =
      ReadQuery(target, &violations, [&](const std::string& name, const std::string& value) {
        int32_t size = 0;
        if (name == "page_token") {
          out.set_page_token(value);
        } else if (name == "page_size") {
          if (!absl::SimpleAtoi(value, &size)) violations.Add(name, "must be a whole number");
          out.set_page_size(size);
        } else {
          return TakeLabel(name, value, out.mutable_labels());
        }
        return true;
      });
  if (!status.ok()) return status;
  return Result(violations, std::move(out));
}

absl::StatusOr<v1::SessionOptions> ParseImportSession(absl::string_view target) {
  FieldViolations violations;
  v1::SessionOptions out;
  const absl::Status status =
      ReadQuery(target, &violations, [&](const std::string& name, const std::string& value) {
        double seconds = 0;
        if (name == "id") {
          out.set_id(value);
        } else if (name == "affinity") {
          out.set_affinity(value);
        } else if (name == "ttl") {
          if (!absl::SimpleAtod(value, &seconds)) seconds = -1;
          SetTtl(seconds, &violations, out.mutable_ttl());
        } else {
          return TakeLabel(name, value, out.mutable_labels());
        }
        return true;
      });
  if (!status.ok()) return status;
  return Result(violations, std::move(out));
}

absl::Status RefuseQuery(absl::string_view target) {
  FieldViolations violations;
  const absl::Status status =
      ReadQuery(target, &violations, [](const std::string&, const std::string&) { return false; });
  return status.ok() ? violations.ToStatus() : status;
}

absl::StatusOr<std::string> EtagOf(const HttpHead& head, const std::string& body_etag) {
  const std::vector<absl::string_view> found = head.FindAll("if-match");
  if (found.empty()) return body_etag;
  FieldViolations violations;
  absl::string_view etag = found[0];
  if (found.size() > 1 || absl::StrContains(etag, ',')) {
    violations.Add("If-Match", "must be one etag, or *");
    return violations.ToStatus();
  }
  if (etag == "*") return body_etag;
  if (absl::ConsumePrefix(&etag, "\"")) absl::ConsumeSuffix(&etag, "\"");
  if (!body_etag.empty() && body_etag != etag) {
    violations.Add("etag", "is another one than the header If-Match has");
    return violations.ToStatus();
  }
  // An empty one is no session's, where our own API would take it for any.
  return etag.empty() ? "\"\"" : std::string(etag);
}

std::string QuotedEtag(absl::string_view etag) { return absl::StrCat("\"", etag, "\""); }

}  // namespace sluice
