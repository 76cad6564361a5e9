#include "client/bench/report.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

std::string TokenRate(int64_t tokens, const BenchSummary& summary) {
  return absl::StrCat(WithCommas(tokens), ", ", WithCommas(std::llround(summary.PerSecond(tokens))),
                      " a second");
}

double TokensPerMessage(const BenchSummary& summary) {
  return summary.messages > 0
             ? static_cast<double>(summary.new_tokens) / static_cast<double>(summary.messages)
             : 0;
}

double SloShare(const BenchSummary& summary) {
  return summary.slo_judged > 0
             ? static_cast<double>(summary.slo_met) / static_cast<double>(summary.slo_judged)
             : 0;
}

std::string LatencyRow(absl::string_view name, const LatencySamples& samples) {
  const LatencySummary s = samples.Summarize();
  std::string row = absl::StrFormat("%-20s", name);
  for (const absl::Duration value : {s.mean, s.p50, s.p90, s.p95, s.p99, s.max}) {
    if (s.count > 0) {
      absl::StrAppendFormat(&row, "%11.2f", Milliseconds(value));
    } else {
      absl::StrAppendFormat(&row, "%11s", "-");
    }
  }
  return absl::StrCat(row, "\n");
}

std::string SloRows(const BenchSummary& summary) {
  std::vector<std::string> targets;
  const auto add = [&](absl::string_view name, absl::Duration target) {
    if (target != absl::InfiniteDuration()) {
      targets.push_back(absl::StrCat(name, " within ", FormatMilliseconds(target)));
    }
  };
  add("first token", summary.targets.first_token);
  add("inter-token", summary.targets.inter_token);
  add("whole request", summary.targets.whole);
  return absl::StrFormat(
      "\nobjective     %s\n              met by %s of %s requests, %.1f %%\n"
      "goodput       %.2f requests a second, %s new tokens a second\n",
      absl::StrJoin(targets, ", "), WithCommas(summary.slo_met), WithCommas(summary.slo_judged),
      SloShare(summary) * 100, summary.PerSecond(summary.slo_met),
      WithCommas(std::llround(summary.PerSecond(summary.slo_met_tokens))));
}

// Warnings that a reader needs before believing the numbers.
std::string Warnings(const BenchSummary& summary) {
  std::string text;
  if (summary.cut_off_waiting > 0) {
    absl::StrAppend(&text, WithCommas(summary.cut_off_waiting),
                    " requests still waited for their first token at the end, one for ",
                    FormatMilliseconds(summary.longest_wait), ": no latency above counts them\n");
  }
  const LatencySummary late = summary.late.Summarize();
  if (late.p99 > absl::Milliseconds(10)) {
    absl::StrAppend(&text, "this client sent requests late (p99 ", FormatMilliseconds(late.p99),
                    "): it is too slow for the load, or its machine too busy\n");
  }
  if (summary.gave_up) absl::StrAppend(&text, "stopped early: the daemon went away\n");
  return text;
}

json LatencyJson(const LatencySamples& samples) {
  std::vector<int> percents(101);
  std::iota(percents.begin(), percents.end(), 0);
  std::vector<double> percentiles;
  for (const absl::Duration value : samples.Percentiles(percents)) {
    percentiles.push_back(Milliseconds(value));
  }
  const LatencySummary s = samples.Summarize();
  return {{"count", s.count},
          {"mean_ms", Milliseconds(s.mean)},
          {"p50_ms", Milliseconds(s.p50)},
          {"p90_ms", Milliseconds(s.p90)},
          {"p95_ms", Milliseconds(s.p95)},
          {"p99_ms", Milliseconds(s.p99)},
          {"max_ms", Milliseconds(s.max)},
          {"percentiles_ms", percentiles}};
}

// One of `percent`; null where there is none.
json SlicePercentile(const LatencySamples& samples, int percent) {
  if (samples.empty()) return nullptr;
  return Milliseconds(samples.Percentiles({percent})[0]);
}

json TimelineJson(const BenchSummary& summary) {
  json timeline = {{"slice_seconds", absl::ToDoubleSeconds(summary.slice)}};
  for (const char* name : {"new_tokens", "completed", "running", "first_token_p50_ms",
                           "first_token_p99_ms", "inter_token_p50_ms", "inter_token_p99_ms"}) {
    timeline[name] = json::array();
  }
  for (const TimelineSlice& slice : summary.timeline) {
    timeline["new_tokens"].push_back(slice.new_tokens);
    timeline["completed"].push_back(slice.completed);
    timeline["running"].push_back(slice.running);
    timeline["first_token_p50_ms"].push_back(SlicePercentile(slice.first_token, 50));
    timeline["first_token_p99_ms"].push_back(SlicePercentile(slice.first_token, 99));
    timeline["inter_token_p50_ms"].push_back(SlicePercentile(slice.inter_token, 50));
    timeline["inter_token_p99_ms"].push_back(SlicePercentile(slice.inter_token, 99));
  }
  return timeline;
}

json ErrorsJson(const BenchSummary& summary) {
  json errors = json::array();
  for (const auto& [error, count] : summary.errors) {
    errors.push_back({{"code", absl::StatusCodeToString(error.first)},
                      {"message", error.second},
                      {"count", count}});
  }
  return errors;
}

// Null: no objective.
json TargetJson(absl::Duration target) {
  return target == absl::InfiniteDuration() ? json() : json(Milliseconds(target));
}

json SloJson(const BenchSummary& summary) {
  if (!summary.targets.any()) return nullptr;
  return {{"first_token_ms", TargetJson(summary.targets.first_token)},
          {"inter_token_ms", TargetJson(summary.targets.inter_token)},
          {"whole_request_ms", TargetJson(summary.targets.whole)},
          {"judged", summary.slo_judged},
          {"met", summary.slo_met},
          {"met_share", SloShare(summary)},
          {"goodput_requests_per_second", summary.PerSecond(summary.slo_met)},
          {"goodput_tokens_per_second", summary.PerSecond(summary.slo_met_tokens)}};
}

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kCutOff:
      break;
  }
  return "cut_off";
}

}  // namespace

std::string FormatReport(const BenchSetup& setup, const BenchSummary& summary) {
  std::string report = absl::StrCat(setup.model.name(), " on ", setup.model.device(), " at ",
                                    setup.address, "; ", setup.load, "; ", setup.requests, "\n\n");
  absl::StrAppendFormat(&report,
                        "requests      %s ok, %s rejected, %s failed, %s cut off in %.2f s, "
                        "%.2f ok a second\n",
                        WithCommas(summary.ok), WithCommas(summary.rejected),
                        WithCommas(summary.failed), WithCommas(summary.cut_off),
                        absl::ToDoubleSeconds(summary.elapsed),
                        summary.PerSecond(summary.completed));
  absl::StrAppendFormat(&report, "in flight     %.1f on average, %s at most\n",
                        summary.mean_running, WithCommas(summary.most_running));
  absl::StrAppend(&report, "prompt tokens ", TokenRate(summary.prompt_tokens, summary));
  if (summary.reused_tokens > 0) {
    absl::StrAppend(&report, ", ", WithCommas(summary.reused_tokens), " of them cached");
  }
  absl::StrAppend(&report, "\nnew tokens    ", TokenRate(summary.new_tokens, summary),
                  absl::StrFormat(", %.2f a message\n\n", TokensPerMessage(summary)));
  absl::StrAppendFormat(&report, "%-20s%11s%11s%11s%11s%11s%11s\n", "latency in ms", "mean", "p50",
                        "p90", "p95", "p99", "max");
  absl::StrAppend(&report, LatencyRow("first token", summary.first_token));
  if (!summary.first_token_later.empty()) {
    absl::StrAppend(&report, LatencyRow("  of later turns", summary.first_token_later));
  }
  absl::StrAppend(&report, LatencyRow("inter-token", summary.inter_token),
                  LatencyRow("between messages", summary.between_messages),
                  LatencyRow("whole request", summary.whole));
  if (summary.targets.any()) absl::StrAppend(&report, SloRows(summary));
  if (!summary.errors.empty()) absl::StrAppend(&report, "\n");
  for (const auto& [error, count] : summary.errors) {
    absl::StrAppendFormat(&report, "%s times %s: %s\n", WithCommas(count),
                          absl::StatusCodeToString(error.first), ForTerminal(error.second));
  }
  const std::string warnings = Warnings(summary);
  return absl::StrCat(report, warnings.empty() ? "" : "\n", warnings);
}

json ReportJson(const BenchSetup& setup, const BenchSummary& summary) {
  json codes = json::object();
  for (const auto& [code, count] : summary.codes) codes[absl::StatusCodeToString(code)] = count;
  return {{"report", "sluice bench"},
          {"version", setup.version},
          {"started", absl::FormatTime(absl::RFC3339_sec, setup.started, absl::UTCTimeZone())},
          {"address", setup.address},
          {"model", setup.model.name()},
          {"device", setup.model.device()},
          {"model_answer", json::parse(ToJson(setup.model), nullptr, false)},
          {"options", setup.options},
          {"load", setup.load},
          {"prompt", setup.requests},
          {"max_new_tokens", setup.max_new_tokens},
          {"ok", summary.ok},
          {"rejected", summary.rejected},
          {"failed", summary.failed},
          {"cut_off", summary.cut_off},
          {"cut_off_waiting", summary.cut_off_waiting},
          {"gave_up", summary.gave_up},
          {"elapsed_seconds", absl::ToDoubleSeconds(summary.elapsed)},
          {"requests_per_second", summary.PerSecond(summary.completed)},
          {"mean_running", summary.mean_running},
          {"most_running", summary.most_running},
          {"prompt_tokens", summary.prompt_tokens},
          {"prompt_tokens_per_second", summary.PerSecond(summary.prompt_tokens)},
          {"reused_tokens", summary.reused_tokens},
          {"new_tokens", summary.new_tokens},
          {"new_tokens_per_second", summary.PerSecond(summary.new_tokens)},
          {"tokens_per_message", TokensPerMessage(summary)},
          {"first_token", LatencyJson(summary.first_token)},
          {"first_token_later_turns", LatencyJson(summary.first_token_later)},
          {"inter_token", LatencyJson(summary.inter_token)},
          {"between_messages", LatencyJson(summary.between_messages)},
          {"whole_request", LatencyJson(summary.whole)},
          {"sent_late", LatencyJson(summary.late)},
          {"slo", SloJson(summary)},
          {"codes", codes},
          {"errors", ErrorsJson(summary)},
          {"timeline", TimelineJson(summary)}};
}

json RequestsJson(const LoadResult& result) {
  json requests = json::array();
  for (const RequestRecord& request : result.requests) {
    if (!request.measured()) continue;
    json row = {{"index", request.index},
                {"turn", request.turn},
                {"due_s", absl::ToDoubleSeconds(request.due)},
                {"late_ms", Milliseconds(request.sent - request.due)},
                {"whole_ms", Milliseconds(request.whole())},
                {"outcome", OutcomeName(request.outcome)},
                {"code", absl::StatusCodeToString(request.code)},
                {"prompt_tokens", request.prompt_tokens},
                {"reused_tokens", request.reused_tokens},
                {"new_tokens", request.new_tokens()},
                {"queued_ms", Milliseconds(request.queued)},
                {"first_token_ms", nullptr},
                {"inter_token_ms", nullptr}};
    if (!request.messages.empty()) row["first_token_ms"] = Milliseconds(request.first_token());
    if (request.messages.size() > 1) row["inter_token_ms"] = Milliseconds(request.inter_token());
    requests.push_back(std::move(row));
  }
  return requests;
}

std::string Dump(const json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sluice
