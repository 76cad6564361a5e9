// Small builders of prometheus-cpp's MetricFamily.
#ifndef SLUICE_SERVER_METRIC_FAMILIES_H_
#define SLUICE_SERVER_METRIC_FAMILIES_H_

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/stats.h"

namespace sluice {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Collects families. A sample that follows one of the same name joins its family.
class MetricFamilies {
 public:
  // `common` goes onto every sample from now on.
  void set_common_labels(MetricLabels common) { common_ = std::move(common); }

  void AddCounter(const std::string& name, const std::string& help, double value,
                  MetricLabels labels = {});
  void AddGauge(const std::string& name, const std::string& help, double value,
                MetricLabels labels = {});
  void AddHistogram(const std::string& name, const std::string& help, const Histogram& histogram,
                    MetricLabels labels = {});

  std::string Text() const;

 private:
  prometheus::ClientMetric* Add(const std::string& name, const std::string& help,
                                prometheus::MetricType type, MetricLabels labels);

  MetricLabels common_;
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_METRIC_FAMILIES_H_
