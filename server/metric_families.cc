#include "server/metric_families.h"

#include <prometheus/text_serializer.h>

#include <limits>
#include <sstream>

namespace sluice {

prometheus::ClientMetric* MetricFamilies::Add(const std::string& name, const std::string& help,
                                              prometheus::MetricType type, MetricLabels labels) {
  if (families_.empty() || families_.back().name != name)
    families_.push_back({name, help, type, {}});
  prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
  for (const auto& [key, value] : common_) metric.label.push_back({key, value});
  for (const auto& [key, value] : labels) metric.label.push_back({key, value});
  return &metric;
}

void MetricFamilies::AddCounter(const std::string& name, const std::string& help, double value,
                                MetricLabels labels) {
  Add(name, help, prometheus::MetricType::Counter, std::move(labels))->counter.value = value;
}

void MetricFamilies::AddGauge(const std::string& name, const std::string& help, double value,
                              MetricLabels labels) {
  Add(name, help, prometheus::MetricType::Gauge, std::move(labels))->gauge.value = value;
}

void MetricFamilies::AddHistogram(const std::string& name, const std::string& help,
                                  const Histogram& histogram, MetricLabels labels) {
  prometheus::ClientMetric::Histogram& out =
      Add(name, help, prometheus::MetricType::Histogram, std::move(labels))->histogram;
  uint64_t cumulative = 0;
  for (size_t i = 0; i <= histogram.num_bounds(); ++i) {
    cumulative += histogram.count(i);
    const double bound =
        i < histogram.num_bounds() ? histogram.bound(i) : std::numeric_limits<double>::infinity();
    out.bucket.push_back({cumulative, bound});
  }
  out.sample_count = cumulative;
  out.sample_sum = histogram.sum();
}

std::string MetricFamilies::Text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families_);
  return out.str();
}

}  // namespace sluice
