// Tells differences between two sides of several runs each from chance.
#ifndef SLUICE_CLIENT_BENCH_PERMUTATION_H_
#define SLUICE_CLIENT_BENCH_PERMUTATION_H_

#include <cstddef>
#include <vector>

namespace sluice {

// `values` has a row for each figure, and in it a value for each run, side A's `a_runs` first. If
// the sides did not differ, any other assignment of the runs to sides would be as likely as this
// one. All assignments are tried, or 2,000 of them, and a figure's chance is the share of them in
// which some figure differs as much as it does: one chance for all figures together, so that many
// figures do not make many false differences (Westfall and Young 1993, the single-step max T). A
// difference is measured in standard errors, of which each is at least 0.5 % of the mean, so that
// runs which happen to agree closely do not count as free of noise. Empty if the runs are too few
// for any chance below 3 %: that takes four a side.
std::vector<double> ChancesByLabels(const std::vector<std::vector<double>>& values, size_t a_runs);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_PERMUTATION_H_
