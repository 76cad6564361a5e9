#include "server/metrics.h"

#include <google/protobuf/stubs/logging.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {
namespace {

Counter protobuf_errors;

void CountProtobufError(google::protobuf::LogLevel, const char*, int, const std::string&) {
  protobuf_errors.Add();
}

void Read(const std::vector<Metric>& metrics, const MetricLabels& common,
          const MetricSources& sources, std::vector<prometheus::MetricFamily>* out) {
  for (const Metric& metric : metrics) {
    MetricSamples samples(metric, common);
    metric.read(sources, &samples);
    // A metric of calls has a sample for each method that was called, and none before the first
    // call.
    if (!samples.family().metric.empty()) out->push_back(samples.family());
  }
}

std::string Table(absl::string_view which, std::vector<Metric> metrics,
                  const std::vector<std::string>& common_labels) {
  std::sort(metrics.begin(), metrics.end(),
            [](const Metric& a, const Metric& b) { return a.name < b.name; });
  std::string out = absl::StrCat("<!-- metrics: ", which,
                                 " -->\n| metric | type | unit | labels | meaning |\n"
                                 "|---|---|---|---|---|\n");
  for (Metric& metric : metrics) {
    std::vector<std::string>& labels = metric.labels;
    labels.insert(labels.end(), common_labels.begin(), common_labels.end());
    std::sort(labels.begin(), labels.end());
    absl::StrAppend(&out, "| `", metric.name, "` | ", KindName(metric.kind), " | ", metric.unit,
                    " | ", absl::StrJoin(labels, ", "), " | ", metric.help, " |\n");
  }
  return absl::StrCat(out, "<!-- end -->\n");
}

}  // namespace

std::string MetricsText(const MetricSources& sources) {
  std::vector<prometheus::MetricFamily> families;
  Read(DaemonMetrics(), {}, sources, &families);
  if (sources.options->vllm_metrics) {
    const MetricLabels common = {{kVllmLabels[0], sources.model}, {kVllmLabels[1], "0"}};
    Read(VllmMetrics(), common, sources, &families);
  }
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return out.str();
}

std::string MetricsMarkdown() {
  return absl::StrCat(
      Table("sluice", DaemonMetrics(), {}), "\n",
      Table("vllm", VllmMetrics(), {std::begin(kVllmLabels), std::end(kVllmLabels)}));
}

void CountProtobufErrors() { google::protobuf::SetLogHandler(&CountProtobufError); }

const Counter& ProtobufErrors() { return protobuf_errors; }

}  // namespace sluice
