#include "client/bench/compare.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/random.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;

constexpr int kBlocks = 20;
constexpr int kDraws = 1000;
constexpr int kOutside = kDraws / 200;  // draws beyond either end of the interval: 0.5 % each
constexpr int64_t kBeyondPercentile = 10;
constexpr int64_t kMostCutOffPercent = 5;
constexpr uint64_t kSeed = 1;

// The number of times that each block was drawn.
using BlockCounts = std::array<int, kBlocks>;
constexpr BlockCounts kEachOnce = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

struct Value {
  double value;
  int block;
};
using Values = std::vector<Value>;

// A report's figures of a run, by block.
struct Run {
  double seconds = 0;
  std::array<double, kBlocks> completed{};
  std::array<double, kBlocks> new_tokens{};
  Values first_token;  // the values ascend
  Values inter_token;
  Values whole;
  int64_t cut_off = 0;          // before their end
  int64_t cut_off_waiting = 0;  // before their first token
  Values not_served;  // 100 for each request that was rejected or failed, 0 for each other
};

bool HasNumber(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_number();
}

void AddValue(const json& row, const char* field, int block, Values* values) {
  const auto found = row.find(field);
  if (found != row.end() && found->is_number()) values->push_back({found->get<double>(), block});
}

std::array<double, kBlocks> SumSlices(const json& slices) {
  std::array<double, kBlocks> sums{};
  for (size_t i = 0; i < slices.size(); ++i) {
    sums[i * kBlocks / slices.size()] += slices[i].get<double>();
  }
  return sums;
}

Run ToRun(const json& report) {
  Run run;
  run.seconds = report["elapsed_seconds"].get<double>();
  run.completed = SumSlices(report["timeline"]["completed"]);
  run.new_tokens = SumSlices(report["timeline"]["new_tokens"]);
  for (const json& row : report["requests"]) {
    const double due = row["due_s"].get<double>() / std::max(run.seconds, 1e-9);
    const int block = std::clamp(static_cast<int>(due * kBlocks), 0, kBlocks - 1);
    const std::string outcome = row["outcome"].get<std::string>();
    AddValue(row, "first_token_ms", block, &run.first_token);
    if (outcome == "ok") {
      AddValue(row, "inter_token_ms", block, &run.inter_token);
      AddValue(row, "whole_ms", block, &run.whole);
    }
    const bool served = outcome == "ok" || outcome == "cut_off";
    if (outcome == "cut_off") ++run.cut_off;
    if (outcome == "cut_off" && !HasNumber(row, "first_token_ms")) ++run.cut_off_waiting;
    run.not_served.push_back({served ? 0.0 : 100.0, block});
  }
  for (Values* values : {&run.first_token, &run.inter_token, &run.whole, &run.not_served}) {
    std::sort(values->begin(), values->end(),
              [](const Value& x, const Value& y) { return x.value < y.value; });
  }
  return run;
}

// Nullopt: the drawn blocks are empty.
using Figure = std::function<std::optional<double>(const Run& run, const BlockCounts& counts)>;

Figure Rate(std::array<double, kBlocks> Run::*blocks) {
  return [blocks](const Run& run, const BlockCounts& counts) -> std::optional<double> {
    if (run.seconds <= 0) return std::nullopt;
    double sum = 0;
    for (int i = 0; i < kBlocks; ++i) sum += (run.*blocks)[i] * counts[i];
    return sum / run.seconds;
  };
}

Figure Mean(Values Run::*values) {
  return [values](const Run& run, const BlockCounts& counts) -> std::optional<double> {
    double sum = 0;
    int64_t count = 0;
    for (const Value& value : run.*values) {
      sum += value.value * counts[value.block];
      count += counts[value.block];
    }
    if (count == 0) return std::nullopt;
    return sum / static_cast<double>(count);
  };
}

// By nearest rank.
Figure Percentile(Values Run::*values, int percent) {
  return [values, percent](const Run& run, const BlockCounts& counts) -> std::optional<double> {
    int64_t count = 0;
    for (const Value& value : run.*values) count += counts[value.block];
    int64_t so_far = 0;
    for (const Value& value : run.*values) {
      so_far += counts[value.block];
      if (so_far > 0 && so_far * 100 >= count * percent) return value.value;
    }
    return std::nullopt;
  };
}

bool EnoughBlocks(const Values& values) {
  std::array<bool, kBlocks> there{};
  for (const Value& value : values) there[value.block] = true;
  return std::count(there.begin(), there.end(), true) >= kBlocks / 2;
}

bool EnoughFor(const Values& values, int percent) {
  const auto count = static_cast<int64_t>(values.size());
  return EnoughBlocks(values) && count * (100 - percent) >= kBeyondPercentile * 100;
}

// True if so many requests were cut off that the latencies of the others say little.
bool TooManyCutOff(const Run& run, int64_t cut_off) {
  return cut_off * 100 > kMostCutOffPercent * static_cast<int64_t>(run.not_served.size());
}

BlockCounts DrawBlocks(Random* random) {
  BlockCounts counts{};
  for (int i = 0; i < kBlocks; ++i) ++counts[random->Below(kBlocks)];
  return counts;
}

Difference DifferenceOf(const ComparedFigure& figure) {
  if (figure.low <= 0 && figure.high >= 0) return Difference::kNoise;
  return (figure.low > 0) == figure.more_is_better ? Difference::kBetter : Difference::kWorse;
}

class Comparer {
 public:
  Comparer(const json& a, const json& b) : a_(ToRun(a)), b_(ToRun(b)) {}

  // `judged`: kNoise, or why the difference cannot be judged.
  void Add(absl::string_view name, absl::string_view unit, bool more_is_better,
           const Figure& figure, Difference judged) {
    const std::optional<double> a = figure(a_, kEachOnce);
    const std::optional<double> b = figure(b_, kEachOnce);
    if (!a.has_value() || !b.has_value()) return;
    ComparedFigure compared;
    compared.name = std::string(name);
    compared.unit = std::string(unit);
    compared.more_is_better = more_is_better;
    compared.a = *a;
    compared.b = *b;
    compared.difference = judged;
    if (judged == Difference::kNoise) SetInterval(figure, &compared);
    figures_.push_back(std::move(compared));
  }

  void AddRates() {
    const bool judged = EnoughBlocks(a_.not_served) && EnoughBlocks(b_.not_served);
    const Difference enough = judged ? Difference::kNoise : Difference::kTooFew;
    Add("requests", "/s", true, Rate(&Run::completed), enough);
    Add("new tokens", "/s", true, Rate(&Run::new_tokens), enough);
    Add("not served", "%", false, Mean(&Run::not_served), enough);
  }

  // `cut_off`: requests of which the latency is not known for want of time.
  void AddLatencies(absl::string_view name, Values Run::*values, int64_t Run::*cut_off) {
    const bool too_many = TooManyCutOff(a_, a_.*cut_off) || TooManyCutOff(b_, b_.*cut_off);
    const auto judged = [&](int percent) {
      if (too_many) return Difference::kCutOff;
      const bool enough = EnoughFor(a_.*values, percent) && EnoughFor(b_.*values, percent);
      return enough ? Difference::kNoise : Difference::kTooFew;
    };
    Add(absl::StrCat(name, " mean"), "ms", false, Mean(values), judged(50));
    for (const int percent : {50, 90, 99}) {
      Add(absl::StrCat(name, " p", percent), "ms", false, Percentile(values, percent),
          judged(percent));
    }
  }

  std::vector<ComparedFigure> Take() { return std::move(figures_); }

 private:
  void SetInterval(const Figure& figure, ComparedFigure* compared) const {
    Random random(kSeed);
    std::vector<double> differences;
    for (int i = 0; i < kDraws; ++i) {
      const BlockCounts counts = DrawBlocks(&random);
      const std::optional<double> a = figure(a_, counts);
      const std::optional<double> b = figure(b_, counts);
      if (a.has_value() && b.has_value()) differences.push_back(*b - *a);
    }
    if (differences.size() <= 2 * kOutside) {
      compared->difference = Difference::kTooFew;
      return;
    }
    std::sort(differences.begin(), differences.end());
    compared->low = differences[kOutside];
    compared->high = differences[differences.size() - 1 - kOutside];
    compared->difference = DifferenceOf(*compared);
  }

  const Run a_;
  const Run b_;
  std::vector<ComparedFigure> figures_;
};

bool HasInterval(const ComparedFigure& figure) {
  return figure.difference != Difference::kTooFew && figure.difference != Difference::kCutOff;
}

const char* DifferenceName(Difference difference) {
  switch (difference) {
    case Difference::kNoise:
      return "within noise";
    case Difference::kBetter:
      return "better";
    case Difference::kWorse:
      return "worse";
    case Difference::kCutOff:
      return "cut off: not comparable";
    case Difference::kTooFew:
      break;
  }
  return "too few to judge";
}

bool IsNumbers(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_array() &&
         std::all_of(found->begin(), found->end(), [](const json& x) { return x.is_number(); });
}

bool IsText(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_string();
}

// Has what Compare and the texts read of it.
bool IsReport(const json& report) {
  if (!report.is_object() || !HasNumber(report, "elapsed_seconds")) return false;
  for (const char* field : {"model", "device", "address", "load", "prompt", "started"}) {
    if (!IsText(report, field)) return false;
  }
  const auto timeline = report.find("timeline");
  if (timeline == report.end() || !timeline->is_object() || !IsNumbers(*timeline, "completed") ||
      !IsNumbers(*timeline, "new_tokens")) {
    return false;
  }
  const auto requests = report.find("requests");
  return requests != report.end() && requests->is_array() &&
         std::all_of(requests->begin(), requests->end(), [](const json& row) {
           return row.is_object() && HasNumber(row, "due_s") && IsText(row, "outcome");
         });
}

std::string RunLine(absl::string_view name, const json& report) {
  const auto text = [&](const char* field) { return report[field].get<std::string>(); };
  return ForTerminal(absl::StrCat(name, "  ", text("file"), ": ", text("model"), " on ",
                                  text("device"), "; ", text("load"), "; ", text("prompt"), "; ",
                                  text("started"), "\n"));
}

// "+12.3 %" of `a`; the plain difference where `a` is 0.
std::string Relative(double difference, double a) {
  return a != 0 ? absl::StrFormat("%+.1f %%", difference / a * 100)
                : absl::StrFormat("%+.2f", difference);
}

}  // namespace

absl::StatusOr<json> ReadReport(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(errno)));
  json report = json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!IsReport(report)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is not a report of sluice bench --json=FILE"));
  }
  report["file"] = file;
  return report;
}

std::vector<ComparedFigure> Compare(const json& a, const json& b) {
  Comparer comparer(a, b);
  comparer.AddRates();
  comparer.AddLatencies("first token", &Run::first_token, &Run::cut_off_waiting);
  comparer.AddLatencies("inter-token of a request", &Run::inter_token, &Run::cut_off);
  comparer.AddLatencies("whole request", &Run::whole, &Run::cut_off);
  return comparer.Take();
}

std::string FormatComparison(const json& a, const json& b,
                             const std::vector<ComparedFigure>& figures) {
  std::string text = absl::StrCat(RunLine("A", a), RunLine("B", b), "\n");
  absl::StrAppendFormat(&text, "%-34s%11s%11s%11s   %-22s\n", "", "A", "B", "change",
                        "99 % interval");
  for (const ComparedFigure& figure : figures) {
    const std::string interval =
        !HasInterval(figure)
            ? ""
            : absl::StrCat(Relative(figure.low, figure.a), " to ", Relative(figure.high, figure.a));
    absl::StrAppendFormat(&text, "%-34s%11.2f%11.2f%11s   %-22s  %s\n",
                          absl::StrCat(figure.name, figure.unit == "ms" ? ", " : " ", figure.unit),
                          figure.a, figure.b, Relative(figure.b - figure.a, figure.a), interval,
                          DifferenceName(figure.difference));
  }
  return text;
}

json ComparisonJson(const std::vector<ComparedFigure>& figures) {
  json rows = json::array();
  for (const ComparedFigure& figure : figures) {
    json row = {{"name", figure.name}, {"unit", figure.unit},
                {"a", figure.a},       {"b", figure.b},
                {"interval", nullptr}, {"difference", DifferenceName(figure.difference)}};
    if (HasInterval(figure)) row["interval"] = {figure.low, figure.high};
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace sluice
