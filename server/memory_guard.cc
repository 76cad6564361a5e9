#include "server/memory_guard.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/log.h"
#include "server/process_stats.h"

namespace sluice {
namespace {

constexpr int64_t kUnbounded = int64_t{1} << 60;  // version 1 says "none" by a number close to 2^63
constexpr int64_t kFullPercent = 90;
constexpr int64_t kGoodAgainPercent = 85;
// It stops the allocations of other threads for milliseconds.
constexpr absl::Duration kTrimInterval = absl::Seconds(2);
constexpr absl::Duration kReturnInterval = absl::Seconds(5);
constexpr int64_t kMuchUnused = int64_t{64} << 20;

// "max", or no file, is no bound.
int64_t BoundIn(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  int64_t bytes = 0;
  if (!(file >> text) || !absl::SimpleAtoi(text, &bytes)) return kUnbounded;
  return bytes;
}

// The smallest bound of a group and all groups above it. In a container, the groups above may be
// invisible, and the group itself may be at the top.
int64_t SmallestBound(const std::string& mount, std::string group, const char* name) {
  int64_t smallest = kUnbounded;
  while (true) {
    smallest = std::min(smallest, BoundIn(absl::StrCat(mount, group, "/", name)));
    if (group.empty()) return smallest;
    group.resize(group.rfind('/'));
  }
}

}  // namespace

int64_t CgroupMemoryLimit(const std::string& root) {
  int64_t smallest = kUnbounded;
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;  // hierarchy:controllers:/group
  while (std::getline(file, line)) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || !absl::StartsWith(parts[2], "/")) continue;
    const std::string group = parts[2] == "/" ? "" : parts[2];
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (parts[1].empty()) {
      smallest = std::min(smallest, SmallestBound(root + "/sys/fs/cgroup", group, "memory.max"));
    } else if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      smallest = std::min(
          smallest, SmallestBound(root + "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
  }
  return smallest >= kUnbounded ? 0 : smallest;
}

void MemoryGuard::Look() {
  if (limit_ > 0) Look(ResidentBytes());
  ReturnUnused();
}

void MemoryGuard::ReturnUnused() {
  const absl::Duration now = clock_->Now();
  if (now < next_return_) return;
  next_return_ = now + kReturnInterval;
  const struct mallinfo2 heap = mallinfo2();
  const int64_t used = static_cast<int64_t>(heap.uordblks + heap.hblkhd);
  if (AnonymousBytes() - used > kMuchUnused) malloc_trim(0);
}

void MemoryGuard::Look(int64_t resident_bytes) {
  if (limit_ == 0) return;
  const int64_t percent = full_ ? kGoodAgainPercent : kFullPercent;
  const bool full = resident_bytes > limit_ / 100 * percent;
  if (full != full_) {
    Log(full ? LogLevel::kWarn : LogLevel::kInfo, full ? "memory_full" : "memory_good_again",
        {{"resident_bytes", resident_bytes}, {"limit_bytes", limit_}});
    admission_->SetMemoryFull(full);
  }
  full_ = full;
  const absl::Duration now = clock_->Now();
  if (!full || now < next_trim_) return;
  next_trim_ = now + kTrimInterval;
  malloc_trim(0);
}

}  // namespace sluice
