// The 1.3B model's shape with random weights, for what depends on sizes alone.
#ifndef SLUICE_TESTS_BENCH_RANDOM_MODEL_H_
#define SLUICE_TESTS_BENCH_RANDOM_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/checkpoint/families/gla.h"
#include "engine/model.h"
#include "kernels/backend.h"

namespace sluice {

GlaShape Shape13B();
// Loaded, with states, and prepared.
absl::StatusOr<std::unique_ptr<Model>> RandomModel(Backend* backend, const GlaShape& shape,
                                                   int32_t slots, int32_t max_rows);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_RANDOM_MODEL_H_
