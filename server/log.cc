#include "server/log.h"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace sluice {
namespace {

constexpr size_t kLinesWaiting = 2048;
constexpr const char* kLevelNames[] = {"debug", "info", "warn", "error"};

struct Logger {
  std::shared_ptr<spdlog::details::thread_pool> pool;
  std::shared_ptr<spdlog::async_logger> lines;
  LogLevel level = LogLevel::kInfo;
  bool json = false;
};

// gRPC's own threads can log until the very end, so what they may hold a pointer to is never freed.
std::atomic<Logger*> current{nullptr};

void AppendEscaped(absl::string_view value, std::string* out) {
  const bool cut = value.size() > kMaxLogValueBytes;
  if (cut) value = value.substr(0, kMaxLogValueBytes);
  for (const char c : value) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20 || byte >= 0x7f) {
      // Not \u00XX, which would name another character than the byte stands for.
      absl::StrAppendFormat(out, "\\\\x%02x", byte);
    } else {
      out->push_back(c);
    }
  }
  if (cut) out->append("...");
}

void AppendQuoted(absl::string_view value, std::string* out) {
  out->push_back('"');
  AppendEscaped(value, out);
  out->push_back('"');
}

// A word needs no quotes in a line of text.
bool IsWord(absl::string_view value) {
  if (value.empty() || value.size() > kMaxLogValueBytes) return false;
  for (const char c : value) {
    if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=') return false;
  }
  return true;
}

void AppendValue(const LogField& field, bool json, std::string* out) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    if (!json && IsWord(*text)) {
      absl::StrAppend(out, *text);
    } else {
      AppendQuoted(*text, out);
    }
  } else if (const auto* number = std::get_if<int64_t>(&field.value)) {
    absl::StrAppend(out, *number);
  } else {
    absl::StrAppendFormat(out, "%.6f",
                          absl::ToDoubleSeconds(std::get<absl::Duration>(field.value)));
  }
}

}  // namespace

std::string FormatLogLine(bool json, LogLevel level, absl::Time time, absl::string_view event,
                          absl::Span<const LogField> fields) {
  const std::string stamp = absl::FormatTime("%E4Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
  const char* level_name = kLevelNames[static_cast<size_t>(level)];
  std::string line;
  if (!json) {
    absl::StrAppend(&line, stamp, " ", level_name, " ", event);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=");
      AppendValue(field, false, &line);
    }
    return line;
  }
  absl::StrAppend(&line, "{\"time\":\"", stamp, "\",\"level\":\"", level_name, "\",\"event\":");
  AppendQuoted(event, &line);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",\"", field.key, "\":");
    AppendValue(field, true, &line);
  }
  line.push_back('}');
  return line;
}

void StartLog(LogLevel level, bool json) {
  StopLog();
  static std::vector<std::unique_ptr<Logger>>& all = *new std::vector<std::unique_ptr<Logger>>;
  Logger& logger = *all.emplace_back(std::make_unique<Logger>());
  logger.pool = std::make_shared<spdlog::details::thread_pool>(kLinesWaiting, 1);
  logger.lines = std::make_shared<spdlog::async_logger>(
      "sluiced", std::make_shared<spdlog::sinks::stderr_sink_mt>(), logger.pool,
      spdlog::async_overflow_policy::overrun_oldest);
  logger.lines->set_pattern("%v");
  logger.lines->flush_on(spdlog::level::trace);
  logger.level = level;
  logger.json = json;
  current.store(&logger, std::memory_order_release);
}

void StopLog() {
  Logger* logger = current.exchange(nullptr, std::memory_order_acq_rel);
  if (logger != nullptr) logger->pool.reset();  // joins its thread
}

void Log(LogLevel level, absl::string_view event, absl::Span<const LogField> fields) {
  Logger* logger = current.load(std::memory_order_acquire);
  if (logger == nullptr || level < logger->level) return;
  const std::string line = FormatLogLine(logger->json, level, absl::Now(), event, fields);
  logger->lines->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

LogLevel ParseLogLevel(absl::string_view name) {
  for (size_t i = 0; i < 4; ++i) {
    if (name == kLevelNames[i]) return static_cast<LogLevel>(i);
  }
  return LogLevel::kInfo;
}

}  // namespace sluice
