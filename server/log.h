// Logs: one line per event on stderr, as text or JSON. Never holds prompts or generated text.
//
// Values that came from outside cannot break a line: whatever is not printable ASCII is escaped,
// and what is longer than 256 bytes is cut. A slow stderr delays nobody: lines are written by a
// thread of their own, and the oldest are dropped when it cannot keep up.
#ifndef SLUICE_SERVER_LOG_H_
#define SLUICE_SERVER_LOG_H_

#include <cstdint>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace sluice {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

inline constexpr size_t kMaxLogValueBytes = 256;

struct LogField {
  LogField(const char* k, absl::string_view v) : key(k), value(v) {}
  LogField(const char* k, const char* v) : key(k), value(absl::string_view(v)) {}
  LogField(const char* k, const std::string& v) : key(k), value(absl::string_view(v)) {}
  LogField(const char* k, int64_t v) : key(k), value(v) {}
  LogField(const char* k, int v) : key(k), value(static_cast<int64_t>(v)) {}
  // In seconds, to the microsecond.
  LogField(const char* k, absl::Duration v) : key(k), value(v) {}

  const char* key;
  std::variant<absl::string_view, int64_t, absl::Duration> value;
};

// Until StartLog (and after StopLog) nothing is logged.
void StartLog(LogLevel level, bool json);
// Writes what is waiting and stops.
void StopLog();

// `event` is a word of ours. Any thread.
void Log(LogLevel level, absl::string_view event, absl::Span<const LogField> fields = {});

// "debug", "info", "warn" or "error"; anything else is kInfo.
LogLevel ParseLogLevel(absl::string_view name);

// The line that Log writes, without its end. For tests.
std::string FormatLogLine(bool json, LogLevel level, absl::Time time, absl::string_view event,
                          absl::Span<const LogField> fields);

}  // namespace sluice

#endif  // SLUICE_SERVER_LOG_H_
