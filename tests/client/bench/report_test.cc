#include "client/bench/report.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

BenchSetup TinySetup() {
  BenchSetup setup;
  setup.address = "host:1";
  setup.model.set_name("tiny");
  setup.model.set_device("cpu");
  setup.load = "closed loop, 2 streams";
  setup.requests = "one prompt for all, 16 new tokens";
  setup.max_new_tokens = 16;
  setup.version = "1.2.3";
  setup.options = {{"seed", "1"}};
  return setup;
}

BenchSummary TinySummary() {
  BenchSummary summary;
  summary.ok = 1200;
  summary.completed = 1200;
  summary.rejected = 1;
  summary.elapsed = absl::Seconds(2);
  summary.prompt_tokens = 4000;
  summary.new_tokens = 3000;
  summary.messages = 1500;
  summary.mean_running = 1.75;
  summary.most_running = 2;
  summary.codes[absl::StatusCode::kResourceExhausted] = 1;
  summary.errors[{absl::StatusCode::kResourceExhausted, "full"}] = 1;
  summary.first_token.Add(absl::Microseconds(12345));
  return summary;
}

TEST(ReportTest, ShowsEveryNumber) {
  EXPECT_EQ(
      FormatReport(TinySetup(), TinySummary()),
      "tiny on cpu at host:1; closed loop, 2 streams; one prompt for all, 16 new tokens\n"
      "\n"
      "requests      1,200 ok, 1 rejected, 0 failed, 0 cut off in 2.00 s, 600.00 ok a second\n"
      "in flight     1.8 on average, 2 at most\n"
      "prompt tokens 4,000, 2,000 a second\n"
      "new tokens    3,000, 1,500 a second, 2.00 a message\n"
      "\n"
      "latency in ms              mean        p50        p90        p95        p99        max\n"
      "first token               12.35      12.35      12.35      12.35      12.35      12.35\n"
      "inter-token                   -          -          -          -          -          -\n"
      "between messages              -          -          -          -          -          -\n"
      "whole request                 -          -          -          -          -          -\n"
      "\n"
      "1 times RESOURCE_EXHAUSTED: full\n");
}

TEST(ReportTest, ShowsObjectivesAndWarnings) {
  BenchSummary summary = TinySummary();
  summary.targets.first_token = absl::Milliseconds(200);
  summary.targets.whole = absl::Seconds(2);
  summary.slo_judged = 1000;
  summary.slo_met = 973;
  summary.slo_met_tokens = 2000;
  summary.cut_off_waiting = 3;
  summary.longest_wait = absl::Milliseconds(1500);
  summary.gave_up = true;
  const std::string report = FormatReport(TinySetup(), summary);
  EXPECT_THAT(report,
              HasSubstr("objective     first token within 200 ms, whole request within 2,000 ms\n"
                        "              met by 973 of 1,000 requests, 97.3 %\n"
                        "goodput       486.50 requests a second, 1,000 new tokens a second\n"));
  EXPECT_THAT(report, HasSubstr("3 requests still waited for their first token at the end, one "
                                "for 1,500 ms: no latency above counts them\n"));
  EXPECT_THAT(report, HasSubstr("stopped early: the daemon went away\n"));
}

TEST(ReportTest, ALateClientIsSaid) {
  BenchSummary summary = TinySummary();
  summary.late.Add(absl::Milliseconds(11));
  EXPECT_THAT(FormatReport(TinySetup(), summary),
              HasSubstr("this client sent requests late (p99 11"));
}

TEST(ReportTest, AnErrorsControlCharactersStayAwayFromTheTerminal) {
  BenchSummary summary = TinySummary();
  summary.errors[{absl::StatusCode::kInternal, "\x1b[2J"}] = 1;
  EXPECT_THAT(FormatReport(TinySetup(), summary), Not(HasSubstr("\x1b")));
}

TEST(ReportTest, JsonHasTheSameNumbers) {
  const json report = ReportJson(TinySetup(), TinySummary());
  EXPECT_EQ(report["version"], "1.2.3");
  EXPECT_EQ(report["model_answer"]["name"], "tiny");
  EXPECT_EQ(report["options"]["seed"], "1");
  EXPECT_EQ(report["ok"], 1200);
  EXPECT_EQ(report["new_tokens_per_second"], 1500.0);
  EXPECT_EQ(report["codes"]["RESOURCE_EXHAUSTED"], 1);
  EXPECT_EQ(report["errors"][0]["message"], "full");
  EXPECT_EQ(report["first_token"]["p95_ms"], 12.345);
  EXPECT_EQ(report["first_token"]["percentiles_ms"].size(), 101u);
  EXPECT_TRUE(report["slo"].is_null());
}

TEST(ReportTest, JsonOfAnErrorThatIsNotUtf8IsJson) {
  BenchSummary summary = TinySummary();
  summary.errors[{absl::StatusCode::kInternal, "\xff\"\n"}] = 2;
  const std::string line = Dump(ReportJson(TinySetup(), summary));
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(json::parse(line)["errors"][1]["message"], "\xEF\xBF\xBD\"\n");
}

TEST(ReportTest, ARowForEachMeasuredRequest) {
  LoadResult run;
  run.requests.resize(3);
  run.requests[0].due = absl::Milliseconds(-1);
  run.requests[1].outcome = Outcome::kRejected;
  run.requests[1].code = absl::StatusCode::kResourceExhausted;
  run.requests[2].outcome = Outcome::kOk;
  run.requests[2].due = absl::Milliseconds(500);
  run.requests[2].ended = absl::Milliseconds(800);
  run.requests[2].messages = {{absl::Milliseconds(600), 1}, {absl::Milliseconds(700), 4}};
  const json rows = RequestsJson(run);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["outcome"], "rejected");
  EXPECT_EQ(rows[0]["code"], "RESOURCE_EXHAUSTED");
  EXPECT_TRUE(rows[0]["first_token_ms"].is_null());
  EXPECT_EQ(rows[1]["due_s"], 0.5);
  EXPECT_EQ(rows[1]["first_token_ms"], 100.0);
  EXPECT_EQ(rows[1]["inter_token_ms"], 25.0);
  EXPECT_EQ(rows[1]["whole_ms"], 300.0);
  EXPECT_EQ(rows[1]["new_tokens"], 5);
}

}  // namespace
}  // namespace sluice
