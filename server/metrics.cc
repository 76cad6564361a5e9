#include "server/metrics.h"

#include <google/protobuf/stubs/logging.h>

#include <array>
#include <string>

#include "server/grpc_settings.h"
#include "server/metric_families.h"
#include "server/process_stats.h"

namespace sluice {
namespace {

constexpr std::array<const char*, kNumFinishReasons> kReasons = {
    "max_tokens", "eos", "stop_string", "stop_token", "time_limit", "error"};
constexpr std::array<const char*, kNumStages> kStages = {"queued", "prefill", "decode"};

Counter protobuf_errors;

void CountProtobufError(google::protobuf::LogLevel, const char*, int, const std::string&) {
  protobuf_errors.Add();
}

double Value(const Counter& counter) { return static_cast<double>(counter.value()); }
double Value(const Gauge& gauge) { return static_cast<double>(gauge.value()); }

void AddDaemon(const MetricSources& sources, MetricFamilies* out) {
  out->AddGauge("sluice_build_info", "What runs, in labels; always 1.", 1,
                {{"version", Version()},
                 {"model", sources.model},
                 {"device", sources.device},
                 {"numerics_id", sources.numerics_id}});
  for (const auto& [stage, duration] : sources.startup) {
    out->AddGauge("sluice_startup_seconds", "Time that a stage of the start took.",
                  absl::ToDoubleSeconds(duration), {{"stage", stage}});
  }
  for (const FlagValue& flag : FlagValues(*sources.options)) {
    if (!flag.number.has_value()) continue;
    out->AddGauge("sluice_limit", "Value of a flag: a number, or a duration in seconds.",
                  *flag.number, {{"flag", flag.name}});
  }
  out->AddCounter("sluice_protobuf_errors_total",
                  "Messages that libprotobuf complained of, such as bad UTF-8.",
                  Value(protobuf_errors));
}

void AddRequests(const EngineStats& stats, MetricFamilies* out) {
  out->AddCounter("sluice_requests_total", "Requests that reached the engine.",
                  Value(stats.requests));
  for (size_t i = 0; i < kNumFinishReasons; ++i) {
    out->AddCounter("sluice_sequences_finished_total", "Sequences that ended, by reason.",
                    Value(stats.finished[i]), {{"reason", kReasons[i]}});
  }
  for (size_t i = 0; i < kNumStages; ++i) {
    out->AddCounter("sluice_requests_cancelled_total",
                    "Requests whose client left, by where they were.", Value(stats.cancelled[i]),
                    {{"stage", kStages[i]}});
  }
  for (size_t i = 0; i < kNumStages; ++i) {
    out->AddCounter("sluice_deadline_exceeded_total",
                    "Requests whose time was over, by where they were.",
                    Value(stats.deadline_exceeded[i]), {{"stage", kStages[i]}});
  }
  out->AddCounter("sluice_requests_failed_total", "Requests that ended with another error.",
                  Value(stats.failed));
  out->AddCounter("sluice_prompt_tokens_total", "Prompt tokens computed.",
                  Value(stats.prompt_tokens));
  out->AddCounter("sluice_generated_tokens_total", "Tokens generated.",
                  Value(stats.generated_tokens));
  out->AddGauge("sluice_requests_waiting", "Requests that wait for a slot.", Value(stats.waiting));
  out->AddGauge("sluice_sequences_running", "Sequences that have a slot and compute.",
                Value(stats.running));
  out->AddGauge("sluice_sequences_paused", "Sequences whose reader is too slow.",
                Value(stats.paused));
  out->AddHistogram("sluice_queue_seconds", "From submission to the first step.",
                    stats.queue_seconds);
  out->AddHistogram("sluice_prefill_seconds", "From the first step to the end of the prompt.",
                    stats.prefill_seconds);
  out->AddHistogram("sluice_time_to_first_token_seconds", "From submission to the first token.",
                    stats.time_to_first_token_seconds);
  out->AddHistogram("sluice_inter_token_seconds", "Between two tokens of a sequence.",
                    stats.inter_token_seconds);
  out->AddHistogram("sluice_decode_seconds", "Of a sequence, from its first token to its last.",
                    stats.decode_seconds);
  out->AddHistogram("sluice_compute_seconds", "Of a sequence, from its first step to its end.",
                    stats.compute_seconds);
  out->AddHistogram("sluice_request_prompt_tokens", "Of requests: tokens of the prompt.",
                    stats.prompt_length);
  out->AddHistogram("sluice_request_max_new_tokens", "Of requests: stop.max_new_tokens.",
                    stats.max_new_tokens);
  out->AddHistogram("sluice_request_sequences", "Of requests: n.", stats.sequences);
  out->AddHistogram("sluice_sequence_new_tokens", "Of sequences that ended: tokens generated.",
                    stats.new_tokens);
  out->AddHistogram("sluice_request_seconds", "Of requests that ended normally.",
                    stats.request_seconds);
}

void AddEngine(const MetricSources& sources, MetricFamilies* out) {
  const EngineStats& stats = *sources.engine;
  out->AddCounter("sluice_steps_total", "Steps of the device.", Value(stats.steps));
  out->AddHistogram("sluice_step_seconds", "From a step's launch to its end.", stats.step_seconds);
  out->AddHistogram("sluice_step_rows", "Tokens computed in one step.", stats.step_rows);
  out->AddCounter("sluice_orphan_rows_total",
                  "Rows of steps formed after their call had ended: a bug where it is not 0.",
                  Value(stats.orphan_rows));
  out->AddCounter("sluice_discarded_rows_total",
                  "Rows of steps that were in flight when their call ended.",
                  Value(stats.discarded_rows));
  out->AddCounter("sluice_held_rows_total",
                  "Decode rows that waited for another step to keep another tenant's inter_token.",
                  Value(stats.held_rows));
  const double used = Value(stats.slots_used);
  const double total = Value(stats.slots_total);
  out->AddGauge("sluice_state_slots", "States that fit on the device.", used,
                {{"tier", "device"}, {"status", "used"}});
  out->AddGauge("sluice_state_slots", "", total - used, {{"tier", "device"}, {"status", "free"}});
  out->AddGauge("sluice_state_bytes", "Bytes of the states in use, by where they are.",
                used * static_cast<double>(sources.slot_bytes), {{"tier", "device"}});
  const double bytes = Value(stats.state_bytes);
  out->AddGauge("sluice_state_bytes", "", Value(stats.host_states) * bytes, {{"tier", "host"}});
  out->AddGauge("sluice_state_bytes", "", Value(stats.disk_states) * bytes, {{"tier", "disk"}});
  out->AddCounter("sluice_state_spills_total", "States moved off the device to make room.",
                  Value(stats.spills));
  out->AddGauge("sluice_live_requests", "Requests the engine has not closed.",
                static_cast<double>(sources.device_thread->live_requests()));
  out->AddGauge("sluice_device_healthy", "1 until the device fails.",
                sources.device_thread->device_status().ok() ? 1 : 0);
}

void AddSessions(const EngineStats& stats, MetricFamilies* out) {
  const char* sessions = "Sessions, by whether a call writes to them.";
  const double busy = Value(stats.busy_sessions);
  out->AddGauge("sluice_sessions", sessions, busy, {{"status", "busy"}});
  out->AddGauge("sluice_sessions", "", Value(stats.sessions) - busy, {{"status", "idle"}});
  out->AddCounter("sluice_sessions_created_total", "Sessions made empty.",
                  Value(stats.sessions_created));
  const char* ended = "Sessions that ended, by why.";
  out->AddCounter("sluice_sessions_ended_total", ended, Value(stats.sessions_expired),
                  {{"reason", "expired"}});
  out->AddCounter("sluice_sessions_ended_total", ended, Value(stats.sessions_deleted),
                  {{"reason", "deleted"}});
  out->AddHistogram("sluice_session_age_seconds", "Age of sessions at their end.",
                    stats.session_age_seconds);
  out->AddCounter("sluice_commits_total", "Calls that moved their session on.",
                  Value(stats.commits));
  out->AddCounter("sluice_forks_total", "Sessions forked from another.", Value(stats.forks));
  const char* snapshots = "Sessions exported and imported.";
  out->AddCounter("sluice_snapshots_total", snapshots, Value(stats.exports),
                  {{"direction", "export"}});
  out->AddCounter("sluice_snapshots_total", snapshots, Value(stats.imports),
                  {{"direction", "import"}});
  out->AddCounter("sluice_session_conflicts_total",
                  "Calls and changes refused for another writer or an old etag.",
                  Value(stats.conflicts));
  out->AddCounter("sluice_session_lost_races_total",
                  "Changes refused because another daemon had written the session.",
                  Value(stats.lost_races));
  out->AddCounter("sluice_session_store_errors_total", "Reads and writes of the disk that failed.",
                  Value(stats.store_errors));
}

void AddStates(const EngineStats& stats, MetricFamilies* out) {
  const char* states =
      "States of sessions and of prompts' beginnings, by the places that have them.";
  out->AddGauge("sluice_states", states, Value(stats.device_states), {{"tier", "device"}});
  out->AddGauge("sluice_states", states, Value(stats.host_states), {{"tier", "host"}});
  out->AddGauge("sluice_states", states, Value(stats.disk_states), {{"tier", "disk"}});
  const char* restores = "Calls that went on from a state, by where it was.";
  out->AddCounter("sluice_state_restores_total", restores, Value(stats.device_restores),
                  {{"from", "device"}});
  out->AddCounter("sluice_state_restores_total", restores, Value(stats.host_restores),
                  {{"from", "host"}});
  out->AddCounter("sluice_state_restores_total", restores, Value(stats.disk_restores),
                  {{"from", "disk"}});
  const char* evictions = "States that lost a place to others, by the place.";
  out->AddCounter("sluice_state_evictions_total", evictions, Value(stats.slot_evictions),
                  {{"tier", "device"}});
  out->AddCounter("sluice_state_evictions_total", evictions, Value(stats.host_evictions),
                  {{"tier", "host"}});
  out->AddCounter("sluice_state_refusals_total", "Calls refused for want of room for a state.",
                  Value(stats.room_refusals));
  out->AddHistogram("sluice_state_spill_seconds", "From a slot to host memory.",
                    stats.spill_seconds);
  out->AddHistogram("sluice_state_load_seconds", "From host memory to a slot.",
                    stats.host_restore_seconds);
  out->AddHistogram("sluice_state_read_seconds", "From a file to host memory.",
                    stats.disk_restore_seconds);
}

void AddPrefixCache(const EngineStats& stats, MetricFamilies* out) {
  out->AddCounter("sluice_prefix_cache_queries_total",
                  "Prompt tokens of calls that looked for theirs in the prefix cache.",
                  Value(stats.prefix_queries));
  out->AddCounter("sluice_prefix_cache_hits_total",
                  "Of them, tokens whose state was there: not computed again.",
                  Value(stats.prefix_hits));
  const char* calls = "Calls that looked in the prefix cache, by whether they reused anything.";
  out->AddCounter("sluice_prefix_cache_calls_total", calls, Value(stats.prefix_hit_calls),
                  {{"result", "hit"}});
  out->AddCounter("sluice_prefix_cache_calls_total", calls, Value(stats.prefix_miss_calls),
                  {{"result", "miss"}});
  out->AddCounter("sluice_prefix_cache_waits_total",
                  "Calls that waited for another one to compute what both begin with.",
                  Value(stats.prefix_waits));
  out->AddCounter("sluice_prefix_cache_evictions_total",
                  "States that the prefix cache gave up to make room.",
                  Value(stats.prefix_evictions));
  out->AddGauge("sluice_prefix_cache_entries", "States in the prefix cache.",
                Value(stats.prefix_entries));
  out->AddGauge("sluice_prefix_cache_bytes", "Bytes of the prefix cache: states and tokens.",
                Value(stats.prefix_bytes));
}

constexpr std::array<const char*, kNumAdmissionRefusals> kRefusals = {
    "max_streams", "max_queued_requests", "max_queued_tokens", "memory_limit"};

void AddRefusals(const char* name, const char* help, const Admission& admission,
                 MetricFamilies* out) {
  for (size_t i = 0; i < kNumAdmissionRefusals; ++i) {
    out->AddCounter(name, help,
                    static_cast<double>(admission.refused(static_cast<AdmissionRefusal>(i))),
                    {{"reason", kRefusals[i]}});
  }
}

void AddStreams(const MetricSources& sources, MetricFamilies* out) {
  const Admission& admission = *sources.admission;
  const EmitterStats& emitter = sources.emitter->stats();
  out->AddGauge("sluice_streams", "Calls that stream and have not ended.",
                static_cast<double>(sources.emitter->live_streams()));
  out->AddGauge("sluice_permits", "Admissions held by calls.",
                static_cast<double>(admission.permits()));
  out->AddGauge("sluice_queued_requests", "Calls admitted that have no output yet.",
                static_cast<double>(admission.queued_requests()));
  out->AddGauge("sluice_queued_tokens", "Prompt tokens of those.",
                static_cast<double>(admission.queued_tokens()));
  AddRefusals("sluice_admission_refused_total",
              "Calls that were not let in, by the bound, everybody's or their tenant's.", admission,
              out);
  out->AddHistogram("sluice_stream_write_stall_seconds",
                    "Of a write to a client: until the connection has taken it.",
                    emitter.write_seconds);
  out->AddGauge("sluice_stream_ring_bytes", "Events that wait for slow readers.",
                static_cast<double>(emitter.ring_bytes.load(std::memory_order_relaxed)));
  out->AddCounter("sluice_stream_writes_total", "Writes to clients.", Value(emitter.writes));
  out->AddCounter("sluice_streams_dropped_total", "Streams ended because nobody read them.",
                  Value(emitter.slow_readers), {{"reason", "slow_reader"}});
}

// Of the ports that serve, together. The second may be null.
void AddConnections(Listener* grpc, Listener* http, MetricFamilies* out) {
  const auto sum = [&](Counter ListenerStats::*counter) {
    return Value(grpc->stats().*counter) + (http == nullptr ? 0 : Value(http->stats().*counter));
  };
  const int64_t open = grpc->open_connections() + (http == nullptr ? 0 : http->open_connections());
  out->AddGauge("sluice_connections", "Connections that are open.", static_cast<double>(open));
  out->AddCounter("sluice_connections_accepted_total", "Connections that were let in.",
                  sum(&ListenerStats::accepted));
  const char* shed_help = "Connections that were closed at once, by what there was too much of.";
  out->AddCounter("sluice_connections_shed_total", shed_help, sum(&ListenerStats::shed_connections),
                  {{"reason", "max_connections"}});
  out->AddCounter("sluice_connections_shed_total", shed_help, sum(&ListenerStats::shed_peer),
                  {{"reason", "max_connections_per_peer"}});
  out->AddCounter("sluice_connections_shed_total", shed_help, sum(&ListenerStats::shed_files),
                  {{"reason", "file_descriptors"}});
}

void AddAuth(const Authenticator& auth, MetricFamilies* out) {
  const AuthStats& stats = auth.stats();
  out->AddGauge("sluice_tenants", "Tenants in --auth_tokens_file.",
                static_cast<double>(auth.tenants()));
  const char* help = "Calls that were refused for who called.";
  out->AddCounter("sluice_auth_refused_total", help, Value(stats.failures),
                  {{"reason", "unauthenticated"}});
  out->AddCounter("sluice_auth_refused_total", help, Value(stats.limited),
                  {{"reason", "too_many_failures"}});
  const char* reload_help = "Changes of --auth_tokens_file that were read.";
  out->AddCounter("sluice_auth_reloads_total", reload_help, Value(stats.reloads),
                  {{"result", "ok"}});
  out->AddCounter("sluice_auth_reloads_total", reload_help, Value(stats.reload_failures),
                  {{"result", "error"}});
}

void AddGrpc(const CallStats& calls, MetricFamilies* out) {
  out->AddCounter("sluice_compressed_calls_refused_total",
                  "Calls over gRPC that were refused because they were compressed.",
                  Value(CompressedCallsRefused()));
  for (size_t i = 0; i < kNumMethods; ++i) {
    const Method method = static_cast<Method>(i);
    for (size_t code = 0; code < kNumGrpcCodes; ++code) {
      const uint64_t count = calls.handled(method, code);
      if (count == 0 && code != 0) continue;
      out->AddCounter("grpc_server_handled_total",
                      "Calls that ended, by method and code; those over HTTP as openai.v1.",
                      static_cast<double>(count),
                      {{"grpc_service", NameOf(method).service},
                       {"grpc_method", NameOf(method).method},
                       {"grpc_code", CodeName(code)}});
    }
  }
  for (size_t i = 0; i < kNumMethods; ++i) {
    const Method method = static_cast<Method>(i);
    if (calls.seconds(method).empty()) continue;  // two dozen samples each
    out->AddHistogram(
        "grpc_server_handling_seconds",
        "From a call's start to its end, streams included, by method.", calls.seconds(method),
        {{"grpc_service", NameOf(method).service}, {"grpc_method", NameOf(method).method}});
  }
}

void AddProcess(MetricFamilies* out) {
  const ProcessStats process = ReadProcessStats();
  out->AddCounter("process_cpu_seconds_total", "CPU time, user and system.", process.cpu_seconds);
  out->AddGauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
  out->AddGauge("process_open_fds", "Open file descriptors.", process.open_fds);
  out->AddGauge("process_max_fds", "Most file descriptors allowed.", process.max_fds);
  out->AddGauge("process_start_time_seconds", "When the process started, as Unix time.",
                process.start_time_seconds);
}

// What dashboards and autoscalers made for vLLM read. A block of their cache is a state slot here.
void AddVllm(const MetricSources& sources, MetricFamilies* out) {
  const EngineStats& stats = *sources.engine;
  out->set_common_labels({{"model_name", sources.model}, {"engine", "0"}});
  out->AddGauge("vllm:num_requests_running", "As sluice_sequences_running.", Value(stats.running));
  out->AddGauge("vllm:num_requests_waiting", "As sluice_requests_waiting.", Value(stats.waiting));
  const double total = Value(stats.slots_total);
  out->AddGauge("vllm:kv_cache_usage_perc", "Share of the state slots in use, 0 to 1.",
                total > 0 ? Value(stats.slots_used) / total : 0);
  out->AddGauge("vllm:cache_config_info", "Chunk of a prompt, and state slots.", 1,
                {{"block_size", std::to_string(sources.prompt_grid)},
                 {"num_gpu_blocks", std::to_string(stats.slots_total.value())}});
  out->AddCounter("vllm:prompt_tokens_total", "As sluice_prompt_tokens_total.",
                  Value(stats.prompt_tokens));
  out->AddCounter("vllm:generation_tokens_total", "As sluice_generated_tokens_total.",
                  Value(stats.generated_tokens));
  out->AddCounter("vllm:prefix_cache_queries_total", "As sluice_prefix_cache_queries_total.",
                  Value(stats.prefix_queries));
  out->AddCounter("vllm:prefix_cache_hits_total", "As sluice_prefix_cache_hits_total.",
                  Value(stats.prefix_hits));
  const auto finished = [&](FinishReason reason) {
    return Value(stats.finished[static_cast<size_t>(reason)]);
  };
  const double stopped = finished(FinishReason::kEos) + finished(FinishReason::kStopString) +
                         finished(FinishReason::kStopToken);
  const char* success_help = "Sequences that ended normally.";
  out->AddCounter("vllm:request_success_total", success_help, stopped,
                  {{"finished_reason", "stop"}});
  out->AddCounter("vllm:request_success_total", success_help,
                  finished(FinishReason::kMaxTokens) + finished(FinishReason::kTimeLimit),
                  {{"finished_reason", "length"}});
  out->AddCounter("vllm:num_preemptions_total", "As sluice_state_spills_total.",
                  Value(stats.spills));
  out->AddHistogram("vllm:time_to_first_token_seconds", "As sluice_time_to_first_token_seconds.",
                    stats.time_to_first_token_seconds);
  out->AddHistogram("vllm:inter_token_latency_seconds", "As sluice_inter_token_seconds.",
                    stats.inter_token_seconds);
  out->AddHistogram("vllm:e2e_request_latency_seconds", "As sluice_request_seconds.",
                    stats.request_seconds);
  out->AddHistogram("vllm:request_queue_time_seconds", "As sluice_queue_seconds.",
                    stats.queue_seconds);
  out->AddHistogram("vllm:request_prefill_time_seconds", "As sluice_prefill_seconds.",
                    stats.prefill_seconds);
  out->AddHistogram("vllm:request_decode_time_seconds", "As sluice_decode_seconds.",
                    stats.decode_seconds);
  out->AddHistogram("vllm:request_inference_time_seconds", "As sluice_compute_seconds.",
                    stats.compute_seconds);
  out->AddHistogram("vllm:request_prompt_tokens", "As sluice_request_prompt_tokens.",
                    stats.prompt_length);
  out->AddHistogram("vllm:request_generation_tokens", "As sluice_sequence_new_tokens.",
                    stats.new_tokens);
  out->AddHistogram("vllm:request_params_max_tokens", "As sluice_request_max_new_tokens.",
                    stats.max_new_tokens);
  out->AddHistogram("vllm:request_params_n", "As sluice_request_sequences.", stats.sequences);
  AddRefusals("vllm:admission_rejections_total", "As sluice_admission_refused_total.",
              *sources.admission, out);
  out->AddHistogram("vllm:iteration_tokens_total", "As sluice_step_rows.", stats.step_rows);
}

}  // namespace

std::string MetricsText(const MetricSources& sources) {
  MetricFamilies out;
  AddDaemon(sources, &out);
  AddRequests(*sources.engine, &out);
  AddEngine(sources, &out);
  AddSessions(*sources.engine, &out);
  AddStates(*sources.engine, &out);
  AddPrefixCache(*sources.engine, &out);
  AddStreams(sources, &out);
  AddConnections(sources.listener, sources.http_listener, &out);
  AddAuth(*sources.auth, &out);
  AddGrpc(*sources.calls, &out);
  AddProcess(&out);
  if (sources.options->vllm_metrics) AddVllm(sources, &out);
  return out.Text();
}

void CountProtobufErrors() { google::protobuf::SetLogHandler(&CountProtobufError); }

}  // namespace sluice
