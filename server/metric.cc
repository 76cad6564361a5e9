#include "server/metric.h"

#include <limits>

#include "kernels/check.h"

namespace sluice {
namespace {

prometheus::MetricType TypeOf(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return prometheus::MetricType::Counter;
    case MetricKind::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricKind::kHistogram:
      break;
  }
  return prometheus::MetricType::Histogram;
}

}  // namespace

MetricSamples::MetricSamples(const Metric& metric, const MetricLabels& common)
    : metric_(metric),
      common_(common),
      family_({metric.name, metric.help, TypeOf(metric.kind), {}}) {}

prometheus::ClientMetric* MetricSamples::NewSample(const std::vector<std::string>& label_values) {
  SLUICE_CHECK(label_values.size() == metric_.labels.size());
  prometheus::ClientMetric& sample = family_.metric.emplace_back();
  for (const auto& [name, value] : common_) sample.label.push_back({name, value});
  for (size_t i = 0; i < label_values.size(); ++i) {
    sample.label.push_back({metric_.labels[i], label_values[i]});
  }
  return &sample;
}

void MetricSamples::Add(double value, const std::vector<std::string>& label_values) {
  SLUICE_CHECK(metric_.kind != MetricKind::kHistogram);
  prometheus::ClientMetric* sample = NewSample(label_values);
  (metric_.kind == MetricKind::kCounter ? sample->counter.value : sample->gauge.value) = value;
}

void MetricSamples::Add(const Counter& counter, const std::vector<std::string>& label_values) {
  Add(static_cast<double>(counter.value()), label_values);
}

void MetricSamples::Add(const Gauge& gauge, const std::vector<std::string>& label_values) {
  Add(static_cast<double>(gauge.value()), label_values);
}

void MetricSamples::Add(const Histogram& histogram, const std::vector<std::string>& label_values) {
  SLUICE_CHECK(metric_.kind == MetricKind::kHistogram);
  prometheus::ClientMetric::Histogram& out = NewSample(label_values)->histogram;
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

const char* KindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      break;
  }
  return "histogram";
}

}  // namespace sluice
