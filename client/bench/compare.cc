#include "client/bench/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <functional>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/permutation.h"
#include "client/bench/random.h"
#include "client/cli/text.h"
#include "client/open_file.h"
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
// Runs whose reused shares of prompts differ by more, in percent, did not do the same work.
constexpr double kMostReuseDifference = 1;
// Among sides that do not differ, as many in a hundred comparisons find a difference.
constexpr double kMostChance = 0.03;

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

double MeanOf(const std::vector<double>& values, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += values[i];
  return sum / static_cast<double>(end - begin);
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

// Compares the runs of two sides, figure by figure.
class Comparer {
 public:
  Comparer(const std::vector<json>& a, const std::vector<json>& b) {
    for (const json& report : a) runs_.push_back(ToRun(report));
    for (const json& report : b) runs_.push_back(ToRun(report));
    a_runs_ = a.size();
  }

  // `judged`: kNoise, or why the difference cannot be judged.
  void Add(absl::string_view name, absl::string_view unit, bool more_is_better,
           const Figure& figure, Difference judged) {
    std::vector<double> values;
    for (const Run& run : runs_) {
      const std::optional<double> value = figure(run, kEachOnce);
      if (!value.has_value()) return;
      values.push_back(*value);
    }
    ComparedFigure compared;
    compared.name = std::string(name);
    compared.unit = std::string(unit);
    compared.more_is_better = more_is_better;
    compared.a = MeanOf(values, 0, a_runs_);
    compared.b = MeanOf(values, a_runs_, values.size());
    compared.difference = judged;
    if (judged == Difference::kNoise && runs_.size() == 2) SetInterval(figure, &compared);
    if (judged == Difference::kNoise && runs_.size() > 2) SetSpread(values, &compared);
    figures_.push_back(std::move(compared));
    values_.push_back(std::move(values));
  }

  void AddRates() {
    const bool judged = All([](const Run& run) { return EnoughBlocks(run.not_served); });
    const Difference enough = judged ? Difference::kNoise : Difference::kTooFew;
    Add("requests", "/s", true, Rate(&Run::completed), enough);
    Add("new tokens", "/s", true, Rate(&Run::new_tokens), enough);
    Add("not served", "%", false, Mean(&Run::not_served), enough);
  }

  // `cut_off`: requests of which the latency is not known for want of time.
  void AddLatencies(absl::string_view name, Values Run::*values, int64_t Run::*cut_off) {
    const bool few_cut_off = All([&](const Run& run) { return !TooManyCutOff(run, run.*cut_off); });
    const auto judged = [&](int percent) {
      if (!few_cut_off) return Difference::kCutOff;
      const bool enough = All([&](const Run& run) { return EnoughFor(run.*values, percent); });
      return enough ? Difference::kNoise : Difference::kTooFew;
    };
    Add(absl::StrCat(name, " mean"), "ms", false, Mean(values), judged(50));
    for (const int percent : {50, 90, 99}) {
      Add(absl::StrCat(name, " p", percent), "ms", false, Percentile(values, percent),
          judged(percent));
    }
  }

  // After the last Add: judges figures of several runs a side, all of them together.
  std::vector<ComparedFigure> Take() {
    if (runs_.size() > 2) JudgeTogether();
    return std::move(figures_);
  }

 private:
  template <typename Predicate>
  bool All(Predicate predicate) const {
    return std::all_of(runs_.begin(), runs_.end(), predicate);
  }

  void SetInterval(const Figure& figure, ComparedFigure* compared) const {
    Random random(kSeed);
    std::vector<double> differences;
    for (int i = 0; i < kDraws; ++i) {
      const BlockCounts counts = DrawBlocks(&random);
      const std::optional<double> a = figure(runs_[0], counts);
      const std::optional<double> b = figure(runs_[1], counts);
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

  // The least and the greatest difference between a run of one side and a run of the other.
  void SetSpread(const std::vector<double>& values, ComparedFigure* compared) const {
    const auto middle = values.begin() + static_cast<int64_t>(a_runs_);
    const auto a = std::minmax_element(values.begin(), middle);
    const auto b = std::minmax_element(middle, values.end());
    compared->low = *b.first - *a.second;
    compared->high = *b.second - *a.first;
  }

  void JudgeTogether() {
    std::vector<size_t> judged;
    for (size_t i = 0; i < figures_.size(); ++i) {
      if (figures_[i].difference == Difference::kNoise) judged.push_back(i);
    }
    std::vector<std::vector<double>> values;
    for (const size_t i : judged) values.push_back(values_[i]);
    const std::vector<double> chances = ChancesByLabels(values, a_runs_);
    for (size_t k = 0; k < judged.size(); ++k) {
      ComparedFigure& figure = figures_[judged[k]];
      if (chances.empty()) {
        figure.difference = Difference::kTooFewRuns;
      } else if (chances[k] <= kMostChance) {
        const bool more = figure.b > figure.a;
        figure.difference =
            more == figure.more_is_better ? Difference::kBetter : Difference::kWorse;
      }
    }
  }

  std::vector<Run> runs_;  // those of side A first
  size_t a_runs_ = 0;
  std::vector<ComparedFigure> figures_;
  std::vector<std::vector<double>> values_;  // of each figure, a value for each run
};

bool HasInterval(const ComparedFigure& figure) {
  return figure.difference != Difference::kTooFew && figure.difference != Difference::kCutOff &&
         figure.difference != Difference::kTooFewRuns;
}

// `sure`: several runs a side were compared.
const char* DifferenceName(Difference difference, bool sure) {
  switch (difference) {
    case Difference::kNoise:
      return "within noise";
    case Difference::kBetter:
      return sure ? "better" : "better (one run)";
    case Difference::kWorse:
      return sure ? "worse" : "worse (one run)";
    case Difference::kCutOff:
      return "cut off: not comparable";
    case Difference::kTooFewRuns:
      return "too few runs to judge";
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
  if (!report.is_object()) return false;
  for (const char* field : {"elapsed_seconds", "prompt_tokens", "reused_tokens"}) {
    if (!HasNumber(report, field)) return false;
  }
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

// The share of the prompts' tokens that the daemon had in its prefix cache.
double ReusedPercent(const json& report) {
  const double prompt = report["prompt_tokens"].get<double>();
  return prompt > 0 ? report["reused_tokens"].get<double>() / prompt * 100 : 0;
}

std::string RunLine(absl::string_view name, const json& report) {
  const auto text = [&](const char* field) { return report[field].get<std::string>(); };
  return ForTerminal(absl::StrCat(
      name, "  ", text("file"), ": ", text("model"), " on ", text("device"), "; ", text("load"),
      "; ", text("prompt"), "; ", text("started"),
      absl::StrFormat("; %.1f %% of the prompts' tokens cached\n", ReusedPercent(report))));
}

// "+12.3 %" of `a`; the plain difference where `a` is 0.
std::string Relative(double difference, double a) {
  return a != 0 ? absl::StrFormat("%+.1f %%", difference / a * 100)
                : absl::StrFormat("%+.2f", difference);
}

}  // namespace

absl::StatusOr<json> ReadReport(const std::string& file) {
  std::ifstream in;
  const absl::Status opened = OpenFile(file, &in);
  if (!opened.ok()) return opened;
  const std::string text(std::istreambuf_iterator<char>(in), {});
  json report = json::parse(text, nullptr, /*allow_exceptions=*/false);
  // The parser takes a NUL byte for the end of the text.
  if (!IsReport(report) || text.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is not a report of sluice bench --json=FILE"));
  }
  report["file"] = file;
  return report;
}

absl::Status CheckComparable(const std::vector<json>& a, const std::vector<json>& b) {
  const json* least = nullptr;
  const json* most = nullptr;
  for (const std::vector<json>* side : {&a, &b}) {
    for (const json& report : *side) {
      if (least == nullptr || ReusedPercent(report) < ReusedPercent(*least)) least = &report;
      if (most == nullptr || ReusedPercent(report) > ReusedPercent(*most)) most = &report;
    }
  }
  if (ReusedPercent(*most) - ReusedPercent(*least) <= kMostReuseDifference) {
    return absl::OkStatus();
  }
  const auto text = [](const json& report) {
    return absl::StrFormat("%.1f %% in %s", ReusedPercent(report),
                           report["file"].get<std::string>());
  };
  return absl::InvalidArgumentError(absl::StrCat(
      "these runs found different shares of their prompts in the daemon's prefix cache (",
      text(*least), ", ", text(*most),
      "), which would pass for a difference in speed: leave out --prompt-seed, or give "
      "--bypass-prefix-cache to all of them"));
}

std::vector<ComparedFigure> Compare(const std::vector<json>& a, const std::vector<json>& b) {
  Comparer comparer(a, b);
  comparer.AddRates();
  comparer.AddLatencies("first token", &Run::first_token, &Run::cut_off_waiting);
  comparer.AddLatencies("inter-token of a request", &Run::inter_token, &Run::cut_off);
  comparer.AddLatencies("whole request", &Run::whole, &Run::cut_off);
  return comparer.Take();
}

std::string FormatComparison(const std::vector<json>& a, const std::vector<json>& b,
                             const std::vector<ComparedFigure>& figures) {
  const bool several = a.size() + b.size() > 2;
  std::string text;
  for (const json& report : a) absl::StrAppend(&text, RunLine("A", report));
  for (const json& report : b) absl::StrAppend(&text, RunLine("B", report));
  absl::StrAppendFormat(&text, "\n%-34s%11s%11s%11s   %-22s\n", "", several ? "mean of A" : "A",
                        several ? "mean of B" : "B", "change",
                        several ? "between any two runs" : "99 % interval");
  for (const ComparedFigure& figure : figures) {
    const std::string interval =
        !HasInterval(figure)
            ? ""
            : absl::StrCat(Relative(figure.low, figure.a), " to ", Relative(figure.high, figure.a));
    absl::StrAppendFormat(&text, "%-34s%11.2f%11.2f%11s   %-22s  %s\n",
                          absl::StrCat(figure.name, figure.unit == "ms" ? ", " : " ", figure.unit),
                          figure.a, figure.b, Relative(figure.b - figure.a, figure.a), interval,
                          DifferenceName(figure.difference, several));
  }
  if (!several) {
    absl::StrAppend(&text,
                    "\nOne run a side shows the noise within each run alone. To judge, give four "
                    "runs or more a side:\n--compare A1.json,A2.json,... B1.json,B2.json,...\n");
  }
  return text;
}

json ComparisonJson(const std::vector<ComparedFigure>& figures, bool several) {
  json rows = json::array();
  for (const ComparedFigure& figure : figures) {
    json row = {{"name", figure.name}, {"unit", figure.unit},
                {"a", figure.a},       {"b", figure.b},
                {"interval", nullptr}, {"difference", DifferenceName(figure.difference, several)}};
    if (HasInterval(figure)) row["interval"] = {figure.low, figure.high};
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace sluice
