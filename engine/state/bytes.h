// Little-endian numbers and counted strings, for the formats of this folder. A reader never looks
// past its end: once something is missing, everything is 0 or empty and ok() is false.
#ifndef SLUICE_ENGINE_STATE_BYTES_H_
#define SLUICE_ENGINE_STATE_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace sluice {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are written as memory is");

class ByteWriter {
 public:
  template <typename T>
  void Put(T value) {
    static_assert(std::is_integral_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  // u32 length, then the bytes.
  void PutString(absl::string_view text) {
    Put(static_cast<uint32_t>(text.size()));
    PutRaw(text);
  }
  void PutRaw(absl::string_view bytes) { bytes_.append(bytes.data(), bytes.size()); }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : left_(bytes) {}

  template <typename T>
  T Get() {
    static_assert(std::is_integral_v<T>);
    T value = 0;
    const absl::string_view raw = GetRaw(sizeof(value));
    if (raw.size() == sizeof(value)) std::memcpy(&value, raw.data(), sizeof(value));
    return value;
  }
  std::string GetString(size_t max_size) {
    const uint32_t size = Get<uint32_t>();
    if (size > max_size) ok_ = false;
    return ok_ ? std::string(GetRaw(size)) : "";
  }
  absl::string_view GetRaw(size_t size) {
    if (size > left_.size()) ok_ = false;
    if (!ok_) return {};
    const absl::string_view raw = left_.substr(0, size);
    left_.remove_prefix(size);
    return raw;
  }

  bool ok() const { return ok_; }
  // All there was has been read.
  bool done() const { return ok_ && left_.empty(); }

 private:
  absl::string_view left_;
  bool ok_ = true;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_BYTES_H_
