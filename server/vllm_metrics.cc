// The metrics that dashboards and autoscalers made for vLLM read. A block of their cache is a state
// slot here.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/metrics.h"

namespace sluice {
namespace {

double Finished(const MetricSources& s, FinishReason reason) {
  return static_cast<double>(s.engine->finished[static_cast<size_t>(reason)].value());
}

// The daemon's metric `ours` under vLLM's name.
Metric Same(const std::string& name, const std::string& ours) {
  const std::vector<Metric>& all = DaemonMetrics();
  const auto it = std::find_if(all.begin(), all.end(),
                               [&](const Metric& metric) { return metric.name == ours; });
  SLUICE_CHECK(it != all.end());
  Metric metric = *it;
  metric.name = name;
  metric.help = absl::StrCat("The same as ", ours, ".");
  return metric;
}

std::vector<Metric> All() {
  return {
      Same("vllm:num_requests_running", "sluice_sequences_running"),
      Same("vllm:num_requests_waiting", "sluice_requests_waiting"),
      {MetricKind::kGauge,
       "vllm:kv_cache_usage_perc",
       "0 to 1",
       {},
       "Share of the state slots in use, 0 to 1.",
       [](const MetricSources& s, MetricSamples* out) {
         const auto total = static_cast<double>(s.engine->slots_total.value());
         out->Add(total > 0 ? static_cast<double>(s.engine->slots_used.value()) / total : 0);
       }},
      {MetricKind::kGauge,
       "vllm:cache_config_info",
       "1",
       {"block_size", "num_gpu_blocks"},
       "Chunk of a prompt, and state slots.",
       [](const MetricSources& s, MetricSamples* out) {
         out->Add(1,
                  {std::to_string(s.prompt_grid), std::to_string(s.engine->slots_total.value())});
       }},
      Same("vllm:prompt_tokens_total", "sluice_prompt_tokens_total"),
      Same("vllm:generation_tokens_total", "sluice_generated_tokens_total"),
      Same("vllm:prefix_cache_queries_total", "sluice_prefix_cache_queries_total"),
      Same("vllm:prefix_cache_hits_total", "sluice_prefix_cache_hits_total"),
      {MetricKind::kCounter,
       "vllm:request_success_total",
       "count",
       {"finished_reason"},
       "Sequences that ended normally.",
       [](const MetricSources& s, MetricSamples* out) {
         out->Add(Finished(s, FinishReason::kEos) + Finished(s, FinishReason::kStopString) +
                      Finished(s, FinishReason::kStopToken),
                  {"stop"});
         out->Add(Finished(s, FinishReason::kMaxTokens) + Finished(s, FinishReason::kTimeLimit),
                  {"length"});
       }},
      Same("vllm:num_preemptions_total", "sluice_state_spills_total"),
      Same("vllm:time_to_first_token_seconds", "sluice_time_to_first_token_seconds"),
      Same("vllm:inter_token_latency_seconds", "sluice_inter_token_seconds"),
      Same("vllm:e2e_request_latency_seconds", "sluice_request_seconds"),
      Same("vllm:request_queue_time_seconds", "sluice_queue_seconds"),
      Same("vllm:request_prefill_time_seconds", "sluice_prefill_seconds"),
      Same("vllm:request_decode_time_seconds", "sluice_decode_seconds"),
      Same("vllm:request_inference_time_seconds", "sluice_compute_seconds"),
      Same("vllm:request_prompt_tokens", "sluice_request_prompt_tokens"),
      Same("vllm:request_generation_tokens", "sluice_sequence_new_tokens"),
      Same("vllm:request_params_max_tokens", "sluice_request_max_new_tokens"),
      Same("vllm:request_params_n", "sluice_request_sequences"),
      Same("vllm:admission_rejections_total", "sluice_admission_refused_total"),
      Same("vllm:iteration_tokens_total", "sluice_step_rows"),
  };
}

}  // namespace

const std::vector<Metric>& VllmMetrics() {
  static const auto* metrics = new std::vector<Metric>(All());
  return *metrics;
}

}  // namespace sluice
