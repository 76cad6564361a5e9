// A model directory with random weights, for what depends on sizes alone.
#ifndef SLUICE_TESTS_BENCH_RANDOM_CHECKPOINT_H_
#define SLUICE_TESTS_BENCH_RANDOM_CHECKPOINT_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/checkpoint.h"

namespace sluice {

// Written in bf16, removed with the object.
class RandomCheckpoint {
 public:
  // `config`: the text of a config.json. In /dev/shm, or where $TMPDIR says.
  static absl::StatusOr<RandomCheckpoint> Write(absl::string_view config);
  RandomCheckpoint(RandomCheckpoint&& other) noexcept : dir_(std::exchange(other.dir_, "")) {}
  ~RandomCheckpoint();

  const std::string& dir() const { return dir_; }

 private:
  explicit RandomCheckpoint(std::string dir) : dir_(std::move(dir)) {}

  std::string dir_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_RANDOM_CHECKPOINT_H_
