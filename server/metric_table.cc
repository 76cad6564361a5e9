// The declarations: one entry for each metric of the daemon, in the order of the /metrics page.

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "server/grpc_settings.h"
#include "server/metrics.h"
#include "server/process_stats.h"

namespace sluice {
namespace {

using Sources = MetricSources;
using Samples = MetricSamples;

constexpr std::array<const char*, kNumFinishReasons> kReasons = {
    "max_tokens", "eos", "stop_string", "stop_token", "time_limit", "error"};
constexpr std::array<const char*, kNumStages> kStages = {"queued", "prefill", "decode"};
constexpr std::array<const char*, kNumAdmissionRefusals> kRefusals = {
    "max_streams", "max_queued_requests", "max_queued_tokens", "memory_limit"};

using Labels = std::vector<std::string>;
using Reader = std::function<void(const Sources&, Samples*)>;

Metric MakeCounter(std::string name, std::string unit, Labels labels, std::string help,
                   Reader read) {
  return {MetricKind::kCounter, std::move(name), std::move(unit),
          std::move(labels),    std::move(help), std::move(read)};
}
Metric MakeGauge(std::string name, std::string unit, Labels labels, std::string help, Reader read) {
  return {MetricKind::kGauge, std::move(name), std::move(unit),
          std::move(labels),  std::move(help), std::move(read)};
}
Metric MakeHistogram(std::string name, std::string unit, Labels labels, std::string help,
                     Reader read) {
  return {MetricKind::kHistogram, std::move(name), std::move(unit),
          std::move(labels),      std::move(help), std::move(read)};
}

// ---- Readers ----

// A counter, gauge or histogram of the engine.
template <typename Stat>
auto Engine(Stat EngineStats::*stat) {
  return [stat](const Sources& s, Samples* out) { out->Add(s.engine->*stat); };
}

// An array of counters of the engine, with one label value for each.
template <size_t N>
auto Engine(std::array<Counter, N> EngineStats::*stats, const std::array<const char*, N>& values) {
  return [stats, values](const Sources& s, Samples* out) {
    for (size_t i = 0; i < N; ++i) out->Add((s.engine->*stats)[i], {values[i]});
  };
}

// Several stats of the engine, with a label value for each.
template <typename Stat>
struct Labelled {
  const char* value;
  Stat EngineStats::*stat;
};
template <typename Stat>
auto Engine(std::vector<Labelled<Stat>> stats) {
  return [stats = std::move(stats)](const Sources& s, Samples* out) {
    for (const Labelled<Stat>& one : stats) out->Add(s.engine->*one.stat, {one.value});
  };
}
using Counters = std::vector<Labelled<Counter>>;
using Gauges = std::vector<Labelled<Gauge>>;

double Value(const Gauge& gauge) { return static_cast<double>(gauge.value()); }
auto Number(double (*read)(const Sources&)) {
  return [read](const Sources& s, Samples* out) { out->Add(read(s)); };
}

// The sum of `value` of the ports that serve.
template <typename Value>
double OfPorts(const Sources& s, const Value& value) {
  double sum = 0;
  for (Listener* listener : {s.listener, s.http_listener}) {
    if (listener != nullptr) sum += static_cast<double>(value(listener));
  }
  return sum;
}

double OfPorts(const Sources& s, Counter ListenerStats::*counter) {
  return OfPorts(s, [&](Listener* port) { return (port->stats().*counter).value(); });
}

double OfPorts(const Sources& s, Counter ConnectionStats::*counter) {
  return OfPorts(s, [&](Listener* port) { return (port->connections().stats().*counter).value(); });
}

// ---- Declarations ----

std::vector<Metric> OfDaemon() {
  return {
      MakeGauge("sluice_build_info", "1", {"version", "model", "device", "numerics_id"},
                "Always 1; the labels say what runs.",
                [](const Sources& s, Samples* out) {
                  out->Add(1, {Version(), s.model, s.device, s.numerics_id});
                }),
      MakeGauge("sluice_startup_seconds", "s", {"stage"}, "Time that a stage of the start took.",
                [](const Sources& s, Samples* out) {
                  for (const auto& [stage, duration] : s.startup) {
                    out->Add(absl::ToDoubleSeconds(duration), {stage});
                  }
                }),
      MakeGauge("sluice_limit", "see meaning", {"flag"},
                "Value of a flag: a number, or a duration in seconds.",
                [](const Sources& s, Samples* out) {
                  for (const FlagValue& flag : FlagValues(*s.options)) {
                    if (flag.number.has_value()) out->Add(*flag.number, {flag.name});
                  }
                }),
      MakeCounter("sluice_protobuf_errors_total", "count", {},
                  "Messages that libprotobuf found faulty, for instance with bad UTF-8.",
                  [](const Sources&, Samples* out) { out->Add(ProtobufErrors()); }),
  };
}

std::vector<Metric> OfRequests() {
  return {
      MakeCounter("sluice_requests_total", "count", {}, "Requests that reached the engine.",
                  Engine(&EngineStats::requests)),
      MakeCounter("sluice_sequences_finished_total", "count", {"reason"},
                  "Sequences that ended, by reason.", Engine(&EngineStats::finished, kReasons)),
      MakeCounter("sluice_requests_cancelled_total", "count", {"stage"},
                  "Requests whose client left, by the stage they had reached.",
                  Engine(&EngineStats::cancelled, kStages)),
      MakeCounter("sluice_deadline_exceeded_total", "count", {"stage"},
                  "Requests whose time ran out, by the stage they had reached.",
                  Engine(&EngineStats::deadline_exceeded, kStages)),
      MakeCounter("sluice_requests_failed_total", "count", {},
                  "Requests that ended with an error other than a cancel or a deadline.",
                  Engine(&EngineStats::failed)),
      MakeCounter("sluice_prompt_tokens_total", "tokens", {}, "Prompt tokens computed.",
                  Engine(&EngineStats::prompt_tokens)),
      MakeCounter("sluice_generated_tokens_total", "tokens", {}, "Tokens generated.",
                  Engine(&EngineStats::generated_tokens)),
      MakeGauge("sluice_requests_waiting", "count", {}, "Requests that wait for a slot.",
                Engine(&EngineStats::waiting)),
      MakeGauge("sluice_sequences_running", "count", {}, "Sequences that have a slot and compute.",
                Engine(&EngineStats::running)),
      MakeGauge("sluice_sequences_paused", "count", {}, "Sequences whose reader is too slow.",
                Engine(&EngineStats::paused)),
      MakeHistogram("sluice_queue_seconds", "s", {}, "Time from submission to the first step.",
                    Engine(&EngineStats::queue_seconds)),
      MakeHistogram("sluice_prefill_seconds", "s", {},
                    "Time from the first step to the end of the prompt.",
                    Engine(&EngineStats::prefill_seconds)),
      MakeHistogram("sluice_time_to_first_token_seconds", "s", {},
                    "Time from submission to the first token.",
                    Engine(&EngineStats::time_to_first_token_seconds)),
      MakeHistogram("sluice_inter_token_seconds", "s", {}, "Time between two tokens of a sequence.",
                    Engine(&EngineStats::inter_token_seconds)),
      MakeHistogram("sluice_decode_seconds", "s", {},
                    "Time from a sequence's first token to its last.",
                    Engine(&EngineStats::decode_seconds)),
      MakeHistogram("sluice_compute_seconds", "s", {},
                    "Time from a sequence's first step to its end.",
                    Engine(&EngineStats::compute_seconds)),
      MakeHistogram("sluice_request_prompt_tokens", "tokens", {}, "Tokens of a request's prompt.",
                    Engine(&EngineStats::prompt_length)),
      MakeHistogram("sluice_request_max_new_tokens", "tokens", {},
                    "A request's stop.max_new_tokens.", Engine(&EngineStats::max_new_tokens)),
      MakeHistogram("sluice_request_sequences", "count", {}, "A request's n.",
                    Engine(&EngineStats::sequences)),
      MakeHistogram("sluice_sequence_new_tokens", "tokens", {},
                    "Tokens that a sequence had generated when it ended.",
                    Engine(&EngineStats::new_tokens)),
      MakeHistogram("sluice_request_seconds", "s", {},
                    "Time from submission to the end of requests that ended normally.",
                    Engine(&EngineStats::request_seconds)),
  };
}

std::vector<Metric> OfEngine() {
  return {
      MakeCounter("sluice_steps_total", "count", {}, "Steps of the device.",
                  Engine(&EngineStats::steps)),
      MakeHistogram("sluice_step_seconds", "s", {}, "Time from a step's launch to its end.",
                    Engine(&EngineStats::step_seconds)),
      MakeHistogram("sluice_step_rows", "tokens", {}, "Tokens computed in one step.",
                    Engine(&EngineStats::step_rows)),
      MakeCounter("sluice_orphan_rows_total", "tokens", {},
                  "Rows of steps formed after their call had ended; any is a bug.",
                  Engine(&EngineStats::orphan_rows)),
      MakeCounter("sluice_discarded_rows_total", "tokens", {},
                  "Rows of steps that were in flight when their call ended.",
                  Engine(&EngineStats::discarded_rows)),
      MakeCounter("sluice_held_rows_total", "tokens", {},
                  "Decode rows that waited for another step to keep another tenant's inter_token.",
                  Engine(&EngineStats::held_rows)),
      MakeGauge("sluice_state_slots", "count", {"tier", "status"}, "States that fit on the device.",
                [](const Sources& s, Samples* out) {
                  const double used = Value(s.engine->slots_used);
                  out->Add(used, {"device", "used"});
                  out->Add(Value(s.engine->slots_total) - used, {"device", "free"});
                }),
      MakeGauge(
          "sluice_state_bytes", "bytes", {"tier"}, "Bytes of the states in use, by where they are.",
          [](const Sources& s, Samples* out) {
            out->Add(Value(s.engine->slots_used) * static_cast<double>(s.slot_bytes), {"device"});
            out->Add(Value(s.engine->host_state_bytes), {"host"});
            out->Add(Value(s.engine->disk_state_bytes), {"disk"});
          }),
      MakeGauge("sluice_attention_pages", "count", {"status"},
                "Pages of attention memory: used, of these shared by several states, and free; and "
                "those that paused calls in host memory will want again (spilled). All 0 where "
                "states have one size.",
                [](const Sources& s, Samples* out) {
                  const double used = Value(s.engine->pages_used);
                  out->Add(used, {"used"});
                  out->Add(Value(s.engine->pages_total) - used, {"free"});
                  out->Add(Value(s.engine->pages_shared), {"shared"});
                  out->Add(Value(s.engine->pages_spilled), {"spilled"});
                }),
      MakeCounter("sluice_state_spills_total", "count", {},
                  "States moved off the device to make room.", Engine(&EngineStats::spills)),
      MakeGauge("sluice_live_requests", "count", {}, "Requests the engine has not closed.",
                Number([](const Sources& s) {
                  return static_cast<double>(s.device_thread->live_requests());
                })),
      MakeGauge("sluice_device_healthy", "0 or 1", {}, "1 until the device fails.",
                Number([](const Sources& s) {
                  return s.device_thread->device_status().ok() ? 1.0 : 0.0;
                })),
  };
}

std::vector<Metric> OfSessions() {
  return {
      MakeGauge("sluice_sessions", "count", {"status"},
                "Sessions, by whether a call writes to them.",
                [](const Sources& s, Samples* out) {
                  const double busy = Value(s.engine->busy_sessions);
                  out->Add(busy, {"busy"});
                  out->Add(Value(s.engine->sessions) - busy, {"idle"});
                }),
      MakeCounter("sluice_sessions_created_total", "count", {}, "Sessions that were created empty.",
                  Engine(&EngineStats::sessions_created)),
      MakeCounter("sluice_sessions_ended_total", "count", {"reason"},
                  "Sessions that ended, by reason.",
                  Engine(Counters{{"expired", &EngineStats::sessions_expired},
                                  {"deleted", &EngineStats::sessions_deleted}})),
      MakeHistogram("sluice_session_age_seconds", "s", {}, "Age of sessions at their end.",
                    Engine(&EngineStats::session_age_seconds)),
      MakeCounter("sluice_commits_total", "count", {}, "Calls that moved their session on.",
                  Engine(&EngineStats::commits)),
      MakeCounter("sluice_forks_total", "count", {}, "Sessions that were forked from another.",
                  Engine(&EngineStats::forks)),
      MakeCounter(
          "sluice_snapshots_total", "count", {"direction"}, "Sessions exported and imported.",
          Engine(Counters{{"export", &EngineStats::exports}, {"import", &EngineStats::imports}})),
      MakeCounter("sluice_session_conflicts_total", "count", {},
                  "Calls and changes refused for another writer or an old etag.",
                  Engine(&EngineStats::conflicts)),
      MakeCounter("sluice_session_lost_races_total", "count", {},
                  "Changes refused because another daemon had written the session.",
                  Engine(&EngineStats::lost_races)),
      MakeCounter("sluice_session_files_quarantined_total", "count", {},
                  "Files under --session_dir that were damaged or out of place and moved to its "
                  "folder quarantine.",
                  Engine(&EngineStats::quarantined)),
      MakeCounter("sluice_session_store_errors_total", "count", {},
                  "Reads and writes of the disk that failed.", Engine(&EngineStats::store_errors)),
  };
}

std::vector<Metric> OfStates() {
  return {
      MakeGauge("sluice_states", "count", {"tier"},
                "States of sessions and of the prefix cache, by the places that have them.",
                Engine(Gauges{{"device", &EngineStats::device_states},
                              {"host", &EngineStats::host_states},
                              {"disk", &EngineStats::disk_states}})),
      MakeCounter("sluice_state_restores_total", "count", {"from"},
                  "Calls that went on from a state, by where it was.",
                  Engine(Counters{{"device", &EngineStats::device_restores},
                                  {"host", &EngineStats::host_restores},
                                  {"disk", &EngineStats::disk_restores}})),
      MakeCounter("sluice_state_evictions_total", "count", {"tier"},
                  "States that lost their place to others, by the place.",
                  Engine(Counters{{"device", &EngineStats::slot_evictions},
                                  {"host", &EngineStats::host_evictions}})),
      MakeCounter("sluice_state_refusals_total", "count", {},
                  "Calls refused because there was no room for a state.",
                  Engine(&EngineStats::room_refusals)),
      MakeHistogram("sluice_state_spill_seconds", "s", {},
                    "Time to copy a state from a slot to host memory.",
                    Engine(&EngineStats::spill_seconds)),
      MakeHistogram("sluice_state_load_seconds", "s", {},
                    "Time to copy a state from host memory to a slot.",
                    Engine(&EngineStats::host_restore_seconds)),
      MakeHistogram(
          "sluice_state_read_seconds", "s", {},
          "Time to bring a state from its file to host memory, the wait for the disk included.",
          Engine(&EngineStats::disk_restore_seconds)),
  };
}

std::vector<Metric> OfPrefixCache() {
  return {
      MakeCounter("sluice_prefix_cache_queries_total", "tokens", {},
                  "Prompt tokens of calls that looked in the prefix cache.",
                  Engine(&EngineStats::prefix_queries)),
      MakeCounter(
          "sluice_prefix_cache_hits_total", "tokens", {},
          "Prompt tokens that were not computed again because the prefix cache had their state.",
          Engine(&EngineStats::prefix_hits)),
      MakeCounter("sluice_prefix_cache_calls_total", "count", {"result"},
                  "Calls that looked in the prefix cache, by whether they reused anything.",
                  Engine(Counters{{"hit", &EngineStats::prefix_hit_calls},
                                  {"miss", &EngineStats::prefix_miss_calls}})),
      MakeCounter("sluice_prefix_cache_waits_total", "count", {},
                  "Calls that waited for another call to compute the prefix that both begin with.",
                  Engine(&EngineStats::prefix_waits)),
      MakeCounter("sluice_prefix_cache_evictions_total", "count", {},
                  "States that the prefix cache gave up to make room.",
                  Engine(&EngineStats::prefix_evictions)),
      MakeGauge("sluice_prefix_cache_entries", "count", {}, "States in the prefix cache.",
                Engine(&EngineStats::prefix_entries)),
      MakeGauge("sluice_prefix_cache_bytes", "bytes", {},
                "Bytes of the prefix cache: states and tokens.",
                Engine(&EngineStats::prefix_bytes)),
  };
}

std::vector<Metric> OfStreams() {
  return {
      MakeGauge(
          "sluice_streams", "count", {}, "Calls that stream and have not ended.",
          Number([](const Sources& s) { return static_cast<double>(s.emitter->live_streams()); })),
      MakeGauge(
          "sluice_permits", "count", {}, "Admissions held by calls.",
          Number([](const Sources& s) { return static_cast<double>(s.admission->permits()); })),
      MakeGauge("sluice_queued_requests", "count", {}, "Admitted calls that have no output yet.",
                Number([](const Sources& s) {
                  return static_cast<double>(s.admission->queued_requests());
                })),
      MakeGauge("sluice_queued_tokens", "tokens", {},
                "Prompt tokens of admitted calls that have no output yet.",
                Number([](const Sources& s) {
                  return static_cast<double>(s.admission->queued_tokens());
                })),
      MakeCounter("sluice_admission_refused_total", "count", {"reason"},
                  "Calls that were not admitted, by the bound that was reached, the daemon's or "
                  "their tenant's.",
                  [](const Sources& s, Samples* out) {
                    for (size_t i = 0; i < kRefusals.size(); ++i) {
                      const auto refusal = static_cast<AdmissionRefusal>(i);
                      out->Add(static_cast<double>(s.admission->refused(refusal)), {kRefusals[i]});
                    }
                  }),
      MakeHistogram(
          "sluice_stream_write_stall_seconds", "s", {},
          "Time that a write to a client took until the connection had taken it.",
          [](const Sources& s, Samples* out) { out->Add(s.emitter->stats().write_seconds); }),
      MakeGauge("sluice_stream_ring_bytes", "bytes", {}, "Events that wait for slow readers.",
                Number([](const Sources& s) {
                  return static_cast<double>(
                      s.emitter->stats().ring_bytes.load(std::memory_order_relaxed));
                })),
      MakeCounter("sluice_stream_writes_total", "count", {}, "Writes to clients.",
                  [](const Sources& s, Samples* out) { out->Add(s.emitter->stats().writes); }),
      MakeCounter("sluice_streams_dropped_total", "count", {"reason"},
                  "Streams ended because nobody read them.",
                  [](const Sources& s, Samples* out) {
                    out->Add(s.emitter->stats().slow_readers, {"slow_reader"});
                  }),
  };
}

std::vector<Metric> OfConnections() {
  return {
      MakeGauge("sluice_connections", "count", {}, "Connections that are open.",
                Number([](const Sources& s) {
                  return OfPorts(s, [](Listener* port) { return port->connections().open(); });
                })),
      MakeCounter("sluice_connections_accepted_total", "count", {}, "Connections that were let in.",
                  Number([](const Sources& s) { return OfPorts(s, &ListenerStats::accepted); })),
      MakeCounter("sluice_connections_evicted_total", "count", {"reason"},
                  "Connections that were closed while open: to make room, without a finished call "
                  "(no_call), or for what they sent beyond their calls (unclaimed_bytes).",
                  [](const Sources& s, Samples* out) {
                    out->Add(OfPorts(s, &ConnectionStats::evicted_no_call), {"no_call"});
                    out->Add(OfPorts(s, &ConnectionStats::evicted_unclaimed), {"unclaimed_bytes"});
                  }),
      MakeCounter("sluice_connections_shed_total", "count", {"reason"},
                  "Connections that were closed at once, by the bound that was reached.",
                  [](const Sources& s, Samples* out) {
                    out->Add(OfPorts(s, &ConnectionStats::shed_connections), {"max_connections"});
                    out->Add(OfPorts(s, &ConnectionStats::shed_peer), {"max_connections_per_peer"});
                    out->Add(OfPorts(s, &ListenerStats::shed_files), {"file_descriptors"});
                  }),
  };
}

std::vector<Metric> OfHttp() {
  return {
      MakeCounter("sluice_http_requests_total", "count", {},
                  "Requests over HTTP, those to the admin port included.",
                  [](const Sources& s, Samples* out) { out->Add(s.http->requests); }),
      MakeCounter("sluice_http_refused_total", "count", {"reason"},
                  "Requests over HTTP that are malformed, by fault.",
                  [](const Sources& s, Samples* out) {
                    out->Add(s.http->malformed, {"malformed"});
                    out->Add(s.http->unknown_coding, {"unknown_coding"});
                    out->Add(s.http->too_large, {"too_large"});
                    out->Add(s.http->late, {"late"});
                  }),
      MakeCounter("sluice_http_connections_evicted_total", "count", {"reason"},
                  "Connections over HTTP that were closed to make room for others.",
                  [](const Sources& s, Samples* out) {
                    out->Add(s.http->evicted_strangers, {"no_call"});
                    out->Add(s.http->evicted_idle, {"idle"});
                  }),
  };
}

std::vector<Metric> OfAuth() {
  return {
      MakeGauge("sluice_tenants", "count", {}, "Tenants in --auth_tokens_file.",
                Number([](const Sources& s) { return static_cast<double>(s.auth->tenants()); })),
      MakeCounter("sluice_auth_refused_total", "count", {"reason"},
                  "Calls that were refused because of their caller, by reason.",
                  [](const Sources& s, Samples* out) {
                    out->Add(s.auth->stats().failures, {"unauthenticated"});
                    out->Add(s.auth->stats().limited, {"too_many_failures"});
                  }),
      MakeCounter("sluice_auth_reloads_total", "count", {"result"},
                  "Changes of --auth_tokens_file that were read.",
                  [](const Sources& s, Samples* out) {
                    out->Add(s.auth->stats().reloads, {"ok"});
                    out->Add(s.auth->stats().reload_failures, {"error"});
                  }),
      MakeCounter(
          "sluice_auth_revoked_calls_total", "count", {},
          "Calls that were ended because --auth_tokens_file no longer lets their tenant in.",
          [](const Sources& s, Samples* out) { out->Add(s.auth->stats().revoked_calls); }),
  };
}

// There are no metrics of TLS without TLS.
std::vector<Metric> OfTls() {
  return {
      MakeCounter("sluice_tls_reloads_total", "count", {"result"},
                  "Changes of --tls_cert, --tls_key and --tls_client_ca that were read.",
                  [](const Sources& s, Samples* out) {
                    if (s.tls == nullptr) return;
                    out->Add(s.tls->stats().reloads, {"ok"});
                    out->Add(s.tls->stats().reload_failures, {"error"});
                  }),
      MakeGauge("sluice_tls_certificate_expiry_time_seconds", "s", {},
                "When the certificate that serves expires, as Unix time.",
                [](const Sources& s, Samples* out) {
                  if (s.tls != nullptr) out->Add(s.tls->stats().expiry_unix);
                }),
  };
}

// A method and a code have a series once there was such a call, OK ones from the start.
void ReadHandled(const Sources& s, Samples* out) {
  for (size_t i = 0; i < kNumMethods; ++i) {
    const MethodName name = NameOf(static_cast<Method>(i));
    for (size_t code = 0; code < kNumGrpcCodes; ++code) {
      const uint64_t count = s.calls->handled(static_cast<Method>(i), code);
      if (count == 0 && code != 0) continue;
      out->Add(static_cast<double>(count), {name.service, name.method, CodeName(code)});
    }
  }
}

// A method that nobody called exports no samples; each would have two dozen.
void ReadHandlingSeconds(const Sources& s, Samples* out) {
  for (size_t i = 0; i < kNumMethods; ++i) {
    const Histogram& seconds = s.calls->seconds(static_cast<Method>(i));
    const MethodName name = NameOf(static_cast<Method>(i));
    if (!seconds.empty()) out->Add(seconds, {name.service, name.method});
  }
}

std::vector<Metric> OfCalls() {
  return {
      MakeCounter("sluice_compressed_calls_refused_total", "count", {},
                  "Calls over gRPC that were refused because they were compressed.",
                  [](const Sources&, Samples* out) { out->Add(CompressedCallsRefused()); }),
      MakeCounter(
          "sluice_early_calls_refused_total", "count", {},
          "Calls over gRPC that were refused because too many of their connection had begun "
          "and not come whole.",
          [](const Sources& s, Samples* out) { out->Add(s.early_calls->refused()); }),
      MakeCounter(
          "grpc_server_handled_total", "count", {"grpc_service", "grpc_method", "grpc_code"},
          "Calls that ended, by method and code; those over HTTP as openai.v1.", ReadHandled),
      MakeHistogram("grpc_server_handling_seconds", "s", {"grpc_service", "grpc_method"},
                    "Time from a call's start to its end, streams included, by method.",
                    ReadHandlingSeconds),
  };
}

std::vector<Metric> OfProcess() {
  return {
      MakeCounter("process_cpu_seconds_total", "s", {}, "CPU time, user and system.",
                  Number([](const Sources&) { return ReadProcessStats().cpu_seconds; })),
      MakeGauge("process_resident_memory_bytes", "bytes", {}, "Resident memory.",
                Number([](const Sources&) { return ReadProcessStats().resident_bytes; })),
      MakeGauge("process_open_fds", "count", {}, "Open file descriptors.",
                Number([](const Sources&) { return ReadProcessStats().open_fds; })),
      MakeGauge("process_max_fds", "count", {}, "Most file descriptors allowed.",
                Number([](const Sources&) { return ReadProcessStats().max_fds; })),
      MakeGauge("process_start_time_seconds", "s", {}, "When the process started, as Unix time.",
                Number([](const Sources&) { return ReadProcessStats().start_time_seconds; })),
  };
}

}  // namespace

const std::vector<Metric>& DaemonMetrics() {
  static const auto* metrics = [] {
    auto* all = new std::vector<Metric>;
    for (const auto part : {OfDaemon, OfRequests, OfEngine, OfSessions, OfStates, OfPrefixCache,
                            OfStreams, OfConnections, OfHttp, OfAuth, OfTls, OfCalls, OfProcess}) {
      for (Metric& metric : part()) all->push_back(std::move(metric));
    }
    return all;
  }();
  return *metrics;
}

}  // namespace sluice
