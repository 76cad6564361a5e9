#include "client/bench/report.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

double PerSecond(int64_t count, absl::Duration elapsed) {
  return elapsed > absl::ZeroDuration()
             ? static_cast<double>(count) / absl::ToDoubleSeconds(elapsed)
             : 0;
}

std::string TokenRate(int64_t tokens, const LoadResult& result) {
  return absl::StrCat(WithCommas(tokens), ", ",
                      WithCommas(static_cast<int64_t>(PerSecond(tokens, result.elapsed) + 0.5)),
                      " a second");
}

double TokensPerMessage(const LoadResult& result) {
  return result.messages > 0
             ? static_cast<double>(result.new_tokens) / static_cast<double>(result.messages)
             : 0;
}

std::string LatencyRow(absl::string_view name, const LatencySamples& samples) {
  const LatencySummary s = samples.Summarize();
  std::string row = absl::StrFormat("%-20s", name);
  for (const absl::Duration value : {s.mean, s.p50, s.p90, s.p99, s.max}) {
    absl::StrAppendFormat(&row, "%11.2f", absl::ToDoubleMilliseconds(value));
  }
  return absl::StrCat(row, "\n");
}

nlohmann::json LatencyJson(const LatencySamples& samples) {
  const LatencySummary s = samples.Summarize();
  return {{"count", s.count},
          {"mean_ms", absl::ToDoubleMilliseconds(s.mean)},
          {"p50_ms", absl::ToDoubleMilliseconds(s.p50)},
          {"p90_ms", absl::ToDoubleMilliseconds(s.p90)},
          {"p99_ms", absl::ToDoubleMilliseconds(s.p99)},
          {"max_ms", absl::ToDoubleMilliseconds(s.max)}};
}

}  // namespace

std::string FormatReport(const BenchSetup& setup, const LoadResult& result) {
  std::string report = absl::StrCat(setup.model, " on ", setup.device, " at ", setup.address, "; ",
                                    setup.load, "; ", setup.prompt, ", ",
                                    WithCommas(setup.max_new_tokens), " new tokens a request\n\n");
  absl::StrAppend(
      &report, "requests      ", WithCommas(result.ok), " ok, ", WithCommas(result.failed),
      " failed, ", WithCommas(result.cut_off), " cut off in ",
      absl::StrFormat("%.2f s, %.2f ok a second\n", absl::ToDoubleSeconds(result.elapsed),
                      PerSecond(result.ok, result.elapsed)));
  absl::StrAppend(&report, "prompt tokens ", TokenRate(result.prompt_tokens, result), "\n");
  absl::StrAppend(&report, "new tokens    ", TokenRate(result.new_tokens, result),
                  absl::StrFormat(", %.2f a message\n\n", TokensPerMessage(result)));
  absl::StrAppend(
      &report, "latency in ms              mean        p50        p90        p99        max\n",
      LatencyRow("first token", result.first_token), LatencyRow("inter-token", result.inter_token),
      LatencyRow("between messages", result.between_messages),
      LatencyRow("whole request", result.whole));
  for (const auto& [error, count] : result.errors) {
    absl::StrAppend(&report, "failed ", WithCommas(count), " times: ", error, "\n");
  }
  if (result.gave_up) absl::StrAppend(&report, "stopped early: the daemon went away\n");
  return report;
}

std::string ReportJson(const BenchSetup& setup, const LoadResult& result) {
  nlohmann::json report = {
      {"address", setup.address},
      {"model", setup.model},
      {"device", setup.device},
      {"load", setup.load},
      {"prompt", setup.prompt},
      {"max_new_tokens", setup.max_new_tokens},
      {"ok", result.ok},
      {"failed", result.failed},
      {"cut_off", result.cut_off},
      {"gave_up", result.gave_up},
      {"elapsed_seconds", absl::ToDoubleSeconds(result.elapsed)},
      {"requests_per_second", PerSecond(result.ok, result.elapsed)},
      {"prompt_tokens", result.prompt_tokens},
      {"prompt_tokens_per_second", PerSecond(result.prompt_tokens, result.elapsed)},
      {"new_tokens", result.new_tokens},
      {"new_tokens_per_second", PerSecond(result.new_tokens, result.elapsed)},
      {"tokens_per_message", TokensPerMessage(result)},
      {"first_token", LatencyJson(result.first_token)},
      {"inter_token", LatencyJson(result.inter_token)},
      {"between_messages", LatencyJson(result.between_messages)},
      {"whole_request", LatencyJson(result.whole)},
      {"errors", result.errors}};
  // Invalid UTF-8 in a message is replaced, not thrown about.
  return report.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sluice
