// The report as one HTML file that needs no network: client/bench/report.html with its data in it.
#ifndef SLUICE_CLIENT_BENCH_HTML_REPORT_H_
#define SLUICE_CLIENT_BENCH_HTML_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice {

// `reports` are one or two of ReportJson, with RequestsJson in "requests"; of those a part is drawn
// when there are many. `comparison` is ComparisonJson of the two, null for one.
std::string HtmlReport(std::vector<nlohmann::json> reports, const nlohmann::json& comparison);

// client/bench/report.html as it is in the source.
absl::string_view ReportPage();

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_HTML_REPORT_H_
