// Declares metrics, and turns their samples into Prometheus families.
#ifndef SLUICE_SERVER_METRIC_H_
#define SLUICE_SERVER_METRIC_H_

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/stats.h"

namespace sluice {

struct MetricSources;
class MetricSamples;

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

// One metric. The /metrics page and the table in deploy/README.md are both made from this.
struct Metric {
  MetricKind kind;
  std::string name;
  std::string unit;  // "s", "bytes", "tokens", "count"; for people
  std::vector<std::string> labels;
  std::string help;
  // Adds the samples; must be callable by any thread and must not wait for the step loop.
  std::function<void(const MetricSources&, MetricSamples*)> read;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Collects the samples of one metric. Each Add names a value for each of the metric's labels, in
// their order.
class MetricSamples {
 public:
  // Every sample carries `common` as well.
  MetricSamples(const Metric& metric, const MetricLabels& common);

  void Add(double value, const std::vector<std::string>& label_values = {});
  void Add(const Counter& counter, const std::vector<std::string>& label_values = {});
  void Add(const Gauge& gauge, const std::vector<std::string>& label_values = {});
  void Add(const Histogram& histogram, const std::vector<std::string>& label_values = {});

  const prometheus::MetricFamily& family() const { return family_; }

 private:
  prometheus::ClientMetric* NewSample(const std::vector<std::string>& label_values);

  const Metric& metric_;
  const MetricLabels& common_;
  prometheus::MetricFamily family_;
};

// "counter", "gauge" or "histogram".
const char* KindName(MetricKind kind);

}  // namespace sluice

#endif  // SLUICE_SERVER_METRIC_H_
