// Runs of two sides, and which differences between the sides are more than noise.
//
// Several runs a side are judged by the noise between them (client/bench/permutation.h): a figure
// is better or worse if its chance among sides that do not differ is at most 3 %, counted over all
// figures together.
//
// One run a side shows the noise within each run alone. Each is cut into 20 blocks of equal time.
// 1,000 times over, 20 blocks are drawn with replacement and the figure is taken of what is in
// them: of requests that were due there, or of tokens that came there. The middle 99 % of the
// differences is the interval that is shown; a difference whose interval is all on one side of zero
// is marked, with the words "one run". Blocks rather than requests are drawn because requests that
// run at the same time slow down together, and the same ones of both runs because loads of one seed
// have their bursts at the same times: those then cancel out.
//
// A figure that too little was measured for is not judged: blocks with requests in them must be at
// least half, and a percentile needs ten requests beyond it in each run. Nor is a latency where
// more than 5 % of a run's requests were cut off before it was known: what is left would flatter
// the slower run.
#ifndef SLUICE_CLIENT_BENCH_COMPARE_H_
#define SLUICE_CLIENT_BENCH_COMPARE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice {

enum class Difference : uint8_t { kNoise, kBetter, kWorse, kTooFew, kCutOff, kTooFewRuns };

struct ComparedFigure {
  std::string name;
  std::string unit;  // "ms", "/s", "%"
  bool more_is_better = false;
  double a = 0;
  double b = 0;
  double low = 0;  // of b - a, for any two runs where there are several; 0 when it is not judged
  double high = 0;
  Difference difference = Difference::kTooFew;
};

// One report that `--json=FILE` wrote, with the file's name in "file". INVALID_ARGUMENT names the
// file.
absl::StatusOr<nlohmann::json> ReadReport(const std::string& file);

// Refuses runs that did not do the same work: their shares of reused prompt tokens differ by more
// than one percent. INVALID_ARGUMENT names the two that differ most. Neither side is empty.
absl::Status CheckComparable(const std::vector<nlohmann::json>& a,
                             const std::vector<nlohmann::json>& b);

// Compares reports made by ReadReport, the second side's against the first's.
std::vector<ComparedFigure> Compare(const std::vector<nlohmann::json>& a,
                                    const std::vector<nlohmann::json>& b);

// A table with a line end after each line.
std::string FormatComparison(const std::vector<nlohmann::json>& a,
                             const std::vector<nlohmann::json>& b,
                             const std::vector<ComparedFigure>& figures);
// `several`: there was more than one run a side.
nlohmann::json ComparisonJson(const std::vector<ComparedFigure>& figures, bool several);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_COMPARE_H_
