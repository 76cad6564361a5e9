#include "client/bench/html_report.h"

#include <utility>

#include "absl/strings/str_replace.h"
#include "client/bench/report.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;

constexpr absl::string_view kPlaceOfData = "{\"reports\":[]}";
constexpr size_t kMostPoints = 2000;

// Every so many-th request, so that the file stays small and the browser quick.
json Thin(const json& requests) {
  const size_t step = requests.size() / kMostPoints + 1;
  json points = json::array();
  for (size_t i = 0; i < requests.size(); i += step) {
    const json& row = requests[i];
    points.push_back({row["due_s"], row.value("first_token_ms", json()), row.value("outcome", "")});
  }
  return points;
}

}  // namespace

std::string HtmlReport(std::vector<json> reports, const json& comparison) {
  for (json& report : reports) {
    report["points"] = Thin(report["requests"]);
    report.erase("requests");
  }
  // "<" is all that could end or begin an element in a script; in JSON it stands in texts alone.
  const std::string data = absl::StrReplaceAll(
      Dump({{"reports", std::move(reports)}, {"comparison", comparison}}), {{"<", "\\u003c"}});
  return absl::StrReplaceAll(ReportPage(), {{kPlaceOfData, data}});
}

}  // namespace sluice
