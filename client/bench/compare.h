// Two runs side by side, and which of their differences are more than noise.
//
// Each run is cut into 20 blocks of equal time. 1,000 times over, 20 blocks are drawn with
// replacement and the figure is taken of what is in them: of requests that were due there, or of
// tokens that came there. The middle 99 % of the differences is the interval that is shown; a
// difference whose interval is all on one side of zero is marked better or worse. Blocks rather
// than requests are drawn because requests that run at the same time slow down together, and the
// same ones of both runs because loads of one seed have their bursts at the same times: those then
// cancel out.
//
// Such an interval knows of the noise within each run alone: machines, builds and times of day that
// differ between the runs are differences like any other. A figure that too little was measured for
// is not judged: blocks with requests in them must be at least half, and a percentile needs ten
// requests beyond it in either run. Nor is a latency where more than 5 % of a run's requests were
// cut off before it was known: what is left would flatter the slower run.
#ifndef SLUICE_CLIENT_BENCH_COMPARE_H_
#define SLUICE_CLIENT_BENCH_COMPARE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice {

enum class Difference : uint8_t { kNoise, kBetter, kWorse, kTooFew, kCutOff };

struct ComparedFigure {
  std::string name;
  std::string unit;  // "ms", "/s", "%"
  bool more_is_better = false;
  double a = 0;
  double b = 0;
  double low = 0;  // of b - a; both 0 when it is not judged
  double high = 0;
  Difference difference = Difference::kTooFew;
};

// One report that `--json=FILE` wrote, with the file's name in "file". INVALID_ARGUMENT names the
// file.
absl::StatusOr<nlohmann::json> ReadReport(const std::string& file);

// Compares two reports made by ReadReport, the second against the first.
std::vector<ComparedFigure> Compare(const nlohmann::json& a, const nlohmann::json& b);

// A table with a line end after each line.
std::string FormatComparison(const nlohmann::json& a, const nlohmann::json& b,
                             const std::vector<ComparedFigure>& figures);
nlohmann::json ComparisonJson(const std::vector<ComparedFigure>& figures);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_COMPARE_H_
