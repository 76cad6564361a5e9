#include "server/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

namespace sluice {
namespace {

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

double OpenFds() {
  DIR* dir = opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  int entries = 0;
  while (readdir(dir) != nullptr) ++entries;
  closedir(dir);
  return entries - 3;  // ".", ".." and the listing's own
}

// Field 22 of /proc/self/stat, in ticks since boot.
double StartTimeSeconds() {
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t name_end = text.rfind(')');  // the name, which can hold anything, ends here
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int i = 3; i < 22; ++i) fields >> skipped;
  double ticks = 0;
  fields >> ticks;
  timespec wall{};
  timespec boot{};
  clock_gettime(CLOCK_REALTIME, &wall);
  clock_gettime(CLOCK_BOOTTIME, &boot);
  return static_cast<double>(wall.tv_sec - boot.tv_sec) +
         ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

struct Resident {
  int64_t resident = 0;
  int64_t shared = 0;  // of files
};

Resident ReadResident() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  Resident pages;
  file >> size >> pages.resident >> pages.shared;
  const int64_t page = sysconf(_SC_PAGESIZE);
  return {pages.resident * page, pages.shared * page};
}

}  // namespace

int64_t ResidentBytes() { return ReadResident().resident; }

int64_t AnonymousBytes() {
  const Resident bytes = ReadResident();
  return bytes.resident - bytes.shared;
}

ProcessStats ReadProcessStats() {
  static const double start_time = StartTimeSeconds();
  ProcessStats stats;
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0)
    stats.cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = static_cast<double>(limit.rlim_cur);
  stats.resident_bytes = static_cast<double>(ResidentBytes());
  stats.open_fds = OpenFds();
  stats.start_time_seconds = start_time;
  return stats;
}

}  // namespace sluice
