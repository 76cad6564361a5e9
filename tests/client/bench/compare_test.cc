#include "client/bench/compare.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "client/bench/permutation.h"
#include "client/bench/random.h"
#include "client/bench/report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;

constexpr int kSeconds = 20;

// A run of kSeconds: `count` requests whose latencies are log-normal, times `slow`. `cut_off` of
// them never saw a token, `rejected` were refused.
json MakeRun(uint64_t seed, int count, double slow = 1, int cut_off = 0, int rejected = 0) {
  Random random(seed);
  LoadResult run;
  run.elapsed = absl::Seconds(kSeconds);
  for (int i = 0; i < count; ++i) {
    RequestRecord request;
    request.due = run.elapsed * (1 - random.Uniform());
    request.sent = request.due;
    request.outcome = i < cut_off              ? Outcome::kCutOff
                      : i < cut_off + rejected ? Outcome::kRejected
                                               : Outcome::kOk;
    request.ended = request.due;
    const auto draw = [&] { return absl::Milliseconds(20 * slow * std::exp(random.Normal() / 2)); };
    for (int k = 0; k < 5 && request.outcome == Outcome::kOk; ++k) {
      request.ended += draw();
      request.messages.push_back({request.ended, 1});
    }
    run.requests.push_back(request);
  }
  json report = ReportJson(BenchSetup(), Summarize(run, {}));
  report["requests"] = RequestsJson(run);
  report["file"] = "f.json";
  return report;
}

ComparedFigure Find(const std::vector<ComparedFigure>& figures, const std::string& name) {
  for (const ComparedFigure& figure : figures) {
    if (figure.name == name) return figure;
  }
  ADD_FAILURE() << "no figure " << name;
  return {};
}

TEST(CompareTest, ARunAgainstItselfIsNoise) {
  const json run = MakeRun(1, 400);
  for (const ComparedFigure& figure : Compare({run}, {run})) {
    EXPECT_EQ(figure.a, figure.b) << figure.name;
    EXPECT_NE(figure.difference, Difference::kBetter) << figure.name;
    EXPECT_NE(figure.difference, Difference::kWorse) << figure.name;
  }
}

TEST(CompareTest, FiguresAreThoseOfTheReport) {
  const json run = MakeRun(1, 400);
  const std::vector<ComparedFigure> figures = Compare({run}, {run});
  EXPECT_NEAR(Find(figures, "new tokens").a, run["new_tokens_per_second"].get<double>(), 1e-9);
  EXPECT_NEAR(Find(figures, "requests").a, run["requests_per_second"].get<double>(), 1e-9);
  EXPECT_NEAR(Find(figures, "first token p90").a, run["first_token"]["p90_ms"].get<double>(), 1e-9);
  EXPECT_NEAR(Find(figures, "whole request mean").a, run["whole_request"]["mean_ms"].get<double>(),
              1e-6);
}

TEST(CompareTest, ARealDifferenceIsMarkedWithItsSign) {
  const std::vector<ComparedFigure> slower = Compare({MakeRun(1, 400)}, {MakeRun(2, 400, 1.3)});
  const std::vector<ComparedFigure> faster = Compare({MakeRun(1, 400, 1.3)}, {MakeRun(2, 400)});
  for (const char* name : {"first token mean", "first token p50", "whole request mean",
                           "inter-token of a request p50"}) {
    EXPECT_EQ(Find(slower, name).difference, Difference::kWorse) << name;
    EXPECT_EQ(Find(faster, name).difference, Difference::kBetter) << name;
  }
  const ComparedFigure mean = Find(slower, "whole request mean");
  EXPECT_LT(mean.low, 0.3 * mean.a);
  EXPECT_GT(mean.high, 0.3 * mean.a);
  const std::vector<ComparedFigure> more = Compare({MakeRun(1, 400)}, {MakeRun(2, 800)});
  EXPECT_EQ(Find(more, "new tokens").difference, Difference::kBetter);
}

TEST(CompareTest, WhatBothRunsShareCancelsOut) {
  const ComparedFigure same =
      Find(Compare({MakeRun(1, 400)}, {MakeRun(1, 400, 1.05)}), "first token mean");
  EXPECT_EQ(same.difference, Difference::kWorse);
  const ComparedFigure other =
      Find(Compare({MakeRun(1, 400)}, {MakeRun(2, 400, 1.05)}), "first token mean");
  EXPECT_GT(other.high - other.low, 4 * (same.high - same.low));
}

TEST(CompareTest, EqualLoadsAreSeldomMarked) {
  int judged = 0;
  int marked = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    for (const ComparedFigure& figure :
         Compare({MakeRun(2 * seed, 120)}, {MakeRun(2 * seed + 1, 120)})) {
      const bool differs =
          figure.difference == Difference::kBetter || figure.difference == Difference::kWorse;
      judged += differs || figure.difference == Difference::kNoise ? 1 : 0;
      marked += differs ? 1 : 0;
    }
  }
  EXPECT_GE(judged, 200);
  // 1 % are meant; 20 blocks make it a little more.
  EXPECT_LE(marked, judged * 4 / 100) << judged;
}

TEST(CompareTest, PercentilesNeedRequestsBeyondThem) {
  const std::vector<ComparedFigure> few = Compare({MakeRun(1, 99)}, {MakeRun(2, 99)});
  EXPECT_EQ(Find(few, "first token p90").difference, Difference::kTooFew);
  EXPECT_NE(Find(few, "first token p50").difference, Difference::kTooFew);
  const std::vector<ComparedFigure> more = Compare({MakeRun(1, 100)}, {MakeRun(2, 100)});
  EXPECT_NE(Find(more, "first token p90").difference, Difference::kTooFew);
  EXPECT_EQ(Find(more, "first token p99").difference, Difference::kTooFew);
}

TEST(CompareTest, CutOffLatenciesAreNotCompared) {
  const std::vector<ComparedFigure> figures =
      Compare({MakeRun(1, 400)}, {MakeRun(2, 400, 0.5, 21)});
  EXPECT_EQ(Find(figures, "first token mean").difference, Difference::kCutOff);
  EXPECT_EQ(Find(figures, "whole request p50").difference, Difference::kCutOff);
  EXPECT_NE(Find(figures, "new tokens").difference, Difference::kCutOff);
  const std::vector<ComparedFigure> fewer = Compare({MakeRun(1, 400)}, {MakeRun(2, 400, 0.5, 20)});
  EXPECT_EQ(Find(fewer, "first token mean").difference, Difference::kBetter);
}

TEST(CompareTest, RejectsAreAFigure) {
  const ComparedFigure figure =
      Find(Compare({MakeRun(1, 400)}, {MakeRun(2, 400, 1, 0, 100)}), "not served");
  EXPECT_EQ(figure.a, 0);
  EXPECT_EQ(figure.b, 25);
  EXPECT_EQ(figure.difference, Difference::kWorse);
}

TEST(CompareTest, TheTableSaysWhatIsWorse) {
  const json a = MakeRun(1, 400);
  const json b = MakeRun(2, 400, 2);
  const std::string table = FormatComparison({a}, {b}, Compare({a}, {b}));
  EXPECT_THAT(table, HasSubstr("\nwhole request mean, ms "));
  EXPECT_THAT(table, HasSubstr("  worse (one run)\n"));
  EXPECT_THAT(table, HasSubstr("too few to judge\n"));
  const json rows = ComparisonJson(Compare({a}, {b}), false);
  EXPECT_EQ(rows[0]["name"], "requests");
  EXPECT_EQ(rows[0]["interval"].size(), 2u);
}

// Six runs a side find a slowdown of 5 % in 36 of 40 such pairs, five in 22.
constexpr int kRuns = 8;

// Runs of one side: `slow` times as long, and 1.5 % apart as runs on one machine are.
std::vector<json> MakeSide(uint64_t seed, int runs, double slow = 1) {
  Random random(seed * 1000);
  std::vector<json> side;
  for (int i = 0; i < runs; ++i) {
    const double noise = std::exp(0.015 * random.Normal());
    side.push_back(MakeRun(seed * 100 + i, 400, slow * noise));
  }
  return side;
}

bool AnyDiffers(const std::vector<ComparedFigure>& figures, Difference wanted) {
  return std::any_of(figures.begin(), figures.end(),
                     [&](const ComparedFigure& figure) { return figure.difference == wanted; });
}

TEST(CompareSidesTest, TenEqualPairsGiveAtMostOneDifference) {
  int marked = 0;
  for (uint64_t pair = 1; pair <= 10; ++pair) {
    const std::vector<ComparedFigure> figures =
        Compare(MakeSide(2 * pair, kRuns), MakeSide(2 * pair + 1, kRuns));
    EXPECT_GE(figures.size(), 10u);
    const bool differs =
        AnyDiffers(figures, Difference::kBetter) || AnyDiffers(figures, Difference::kWorse);
    marked += differs ? 1 : 0;
  }
  EXPECT_LE(marked, 1);
}

TEST(CompareSidesTest, ASlowdownOf5PercentIsFoundInNineOfTen) {
  int found = 0;
  for (uint64_t pair = 1; pair <= 10; ++pair) {
    const std::vector<ComparedFigure> figures =
        Compare(MakeSide(2 * pair, kRuns), MakeSide(2 * pair + 1, kRuns, 1.05));
    found += AnyDiffers(figures, Difference::kWorse) ? 1 : 0;
    EXPECT_FALSE(AnyDiffers(figures, Difference::kBetter));
  }
  EXPECT_GE(found, 9);
}

TEST(CompareSidesTest, ThreeRunsASideAreTooFew) {
  const std::vector<ComparedFigure> figures = Compare(MakeSide(1, 3), MakeSide(2, 3, 2));
  EXPECT_EQ(Find(figures, "whole request mean").difference, Difference::kTooFewRuns);
  const std::vector<ComparedFigure> four = Compare(MakeSide(1, 4), MakeSide(2, 4, 2));
  EXPECT_EQ(Find(four, "whole request mean").difference, Difference::kWorse);
  EXPECT_THAT(FormatComparison(MakeSide(1, 4), MakeSide(2, 4, 2), four), HasSubstr("  worse\n"));
}

TEST(CompareSidesTest, RunsThatReusedOtherSharesAreRefused) {
  std::vector<json> a = MakeSide(1, 2);
  std::vector<json> b = MakeSide(2, 2);
  EXPECT_TRUE(CheckComparable(a, b).ok());
  for (json* run : {&a[0], &a[1], &b[0], &b[1]}) (*run)["prompt_tokens"] = 1000;
  b[1]["reused_tokens"] = 9;
  EXPECT_TRUE(CheckComparable(a, b).ok());
  b[1]["reused_tokens"] = 500;
  EXPECT_THAT(std::string(CheckComparable(a, b).message()),
              HasSubstr("(0.0 % in f.json, 50.0 % in f.json)"));
}

TEST(ChancesByLabels, CountsEveryAssignment) {
  // There are 70 ways to label four of eight runs; only this one and its mirror differ as much.
  const std::vector<double> apart = {1, 1.01, 1.02, 1.03, 2, 2.01, 2.02, 2.03};
  EXPECT_NEAR(ChancesByLabels({apart}, 4)[0], 2.0 / 70, 1e-9);
  const std::vector<double> same(8, 5);
  EXPECT_EQ(ChancesByLabels({same}, 4)[0], 1);
  // A second figure can only make a chance greater.
  const std::vector<double> noise = {3, 1, 4, 1, 5, 9, 2, 6};
  EXPECT_GE(ChancesByLabels({apart, noise}, 4)[0], 2.0 / 70);
  EXPECT_TRUE(ChancesByLabels({{1, 2, 3, 4, 5, 6}}, 3).empty());
  // Too many assignments to try all.
  std::vector<double> many;
  for (int i = 0; i < 24; ++i) many.push_back(i < 12 ? 1 + i * 0.001 : 2 + i * 0.001);
  EXPECT_LT(ChancesByLabels({many}, 12)[0], 0.001);
}

class ReadReportTest : public ::testing::Test {
 protected:
  std::string ErrorOf(const std::string& text) {
    const std::string file = ::testing::TempDir() + "/compare_test.json";
    std::ofstream(file) << text;
    const auto report = ReadReport(file);
    std::filesystem::remove(file);
    return report.ok() ? "no error" : std::string(report.status().message());
  }
};

TEST_F(ReadReportTest, ReadsWhatWasWritten) {
  EXPECT_EQ(ErrorOf(Dump(MakeRun(1, 10))), "no error");
}

TEST_F(ReadReportTest, RefusesAnythingElseByName) {
  json no_requests = MakeRun(1, 10);
  no_requests.erase("requests");
  json text_for_time = MakeRun(1, 10);
  text_for_time["requests"][3]["due_s"] = "0.5";
  json bad_slices = MakeRun(1, 10);
  bad_slices["timeline"]["completed"][0] = nullptr;
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), Dump(no_requests), Dump(text_for_time),
        Dump(bad_slices), Dump(MakeRun(1, 10)) + std::string("\0x", 2)}) {
    EXPECT_THAT(ErrorOf(text), HasSubstr("compare_test.json: is not a report of sluice bench"));
  }
  EXPECT_EQ(ReadReport("/nowhere/x").status().message(), "/nowhere/x: No such file or directory");
}

}  // namespace
}  // namespace sluice
