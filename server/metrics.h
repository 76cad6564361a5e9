// Every metric of the daemon, in the Prometheus text format. Labels have fixed sets of values: no
// client can make a series, and none names a request, a session or a text. A scrape reads atomics
// and takes no lock of the step loop.
//
// A new metric is one entry of metric_table.cc; `python tests/deploy/metrics_tables.py` then writes
// the table of deploy/README.md anew, and tests/e2e/test_metrics.py wants to see it move.
#ifndef SLUICE_SERVER_METRICS_H_
#define SLUICE_SERVER_METRICS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/core/admission.h"
#include "server/core/device_thread.h"
#include "server/core/emitter.h"
#include "server/early_calls.h"
#include "server/http/http_server.h"
#include "server/listener.h"
#include "server/metric.h"
#include "server/options.h"
#include "server/tls.h"

namespace sluice {

// The sources that are read; all of them outlive the scrapes.
struct MetricSources {
  const EngineStats* engine = nullptr;
  const Emitter* emitter = nullptr;
  const Authenticator* auth = nullptr;
  const ServerTls* tls = nullptr;  // null: plain text
  const Admission* admission = nullptr;
  const DeviceThread* device_thread = nullptr;
  const CallStats* calls = nullptr;
  Listener* listener = nullptr;
  const EarlyCalls* early_calls = nullptr;
  Listener* http_listener = nullptr;  // null: none
  const HttpServerStats* http = nullptr;
  const ServerOptions* options = nullptr;
  std::string model;
  std::string device;
  std::string numerics_id;
  int64_t slot_bytes = 0;
  int32_t prompt_grid = 0;
  std::vector<std::pair<std::string, absl::Duration>> startup;  // stages
};

// The daemon's own metrics, and the process's.
const std::vector<Metric>& DaemonMetrics();
// The metrics that dashboards and autoscalers made for vLLM read; each sample also has kVllmLabels.
const std::vector<Metric>& VllmMetrics();
inline constexpr const char* kVllmLabels[] = {"model_name", "engine"};

// The /metrics page.
std::string MetricsText(const MetricSources& sources);
// The tables of deploy/README.md, each between the comments that mark its place.
std::string MetricsMarkdown();

// Counts the messages that libprotobuf found faulty, in place of its printing to stderr (a line for
// each bad UTF-8 string). Call it once, at the start.
void CountProtobufErrors();
const Counter& ProtobufErrors();

}  // namespace sluice

#endif  // SLUICE_SERVER_METRICS_H_
