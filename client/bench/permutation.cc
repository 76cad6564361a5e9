#include "client/bench/permutation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "client/bench/random.h"

namespace sluice {
namespace {

using Labels = std::vector<bool>;  // true for a run of side A

constexpr double kFloor = 0.005;  // of the mean
constexpr double kLeastAssignments = 1 / 0.03;
constexpr double kMostAssignments = 2000;
constexpr int kDraws = 2000;
constexpr uint64_t kSeed = 1;
constexpr double kSame = 1e-9;  // rounding

double Assignments(size_t runs, size_t a_runs) {
  double count = 1;
  for (size_t i = 0; i < a_runs; ++i) {
    count = count * static_cast<double>(runs - i) / static_cast<double>(i + 1);
  }
  return count;
}

// The difference of the sides' means in standard errors.
double Statistic(const std::vector<double>& values, const Labels& is_a) {
  double sum[2] = {};
  double count[2] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    sum[is_a[i]] += values[i];
    ++count[is_a[i]];
  }
  const double mean[2] = {sum[0] / count[0], sum[1] / count[1]};
  double squares[2] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    const double off = values[i] - mean[is_a[i]];
    squares[is_a[i]] += off * off;
  }
  const double freedom = count[0] + count[1] - 2;
  const double variance = (squares[0] + squares[1]) / freedom;
  const double error = std::sqrt(variance * (1 / count[0] + 1 / count[1]));
  const double floor = kFloor * std::abs(sum[0] + sum[1]) / static_cast<double>(values.size());
  const double difference = std::abs(mean[0] - mean[1]);
  return difference == 0 ? 0 : difference / std::max(error, floor);
}

void Shuffle(Random* random, Labels* labels) {
  for (size_t i = labels->size() - 1; i > 0; --i) {
    const size_t j = random->Below(i + 1);
    const bool kept = (*labels)[i];
    (*labels)[i] = (*labels)[j];
    (*labels)[j] = kept;
  }
}

}  // namespace

std::vector<double> ChancesByLabels(const std::vector<std::vector<double>>& values, size_t a_runs) {
  if (values.empty()) return {};
  const size_t runs = values[0].size();
  if (a_runs < 2 || runs - a_runs < 2 || Assignments(runs, a_runs) < kLeastAssignments) return {};
  Labels labels(runs, false);
  std::fill_n(labels.begin(), a_runs, true);
  std::vector<double> found;
  for (const std::vector<double>& row : values) found.push_back(Statistic(row, labels));
  std::vector<double> as_great(values.size(), 0);
  double tried = 0;
  const auto count = [&] {
    double greatest = 0;
    for (const std::vector<double>& row : values) {
      greatest = std::max(greatest, Statistic(row, labels));
    }
    for (size_t i = 0; i < found.size(); ++i) {
      if (greatest >= found[i] - kSame) ++as_great[i];
    }
    ++tried;
  };
  if (Assignments(runs, a_runs) <= kMostAssignments) {
    std::sort(labels.begin(), labels.end());
    do {
      count();
    } while (std::next_permutation(labels.begin(), labels.end()));
  } else {
    // The assignment that was found is one of those that are counted.
    Random random(kSeed);
    count();
    for (int i = 1; i < kDraws; ++i) {
      Shuffle(&random, &labels);
      count();
    }
  }
  for (double& share : as_great) share /= tried;
  return as_great;
}

}  // namespace sluice
