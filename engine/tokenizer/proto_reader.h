// Reads protobuf's wire format, without protobuf: the few fields of a small message.
#ifndef SLUICE_ENGINE_TOKENIZER_PROTO_READER_H_
#define SLUICE_ENGINE_TOKENIZER_PROTO_READER_H_

#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace sluice {

struct ProtoField {
  enum class Wire : uint8_t { kVarint, kFixed64, kBytes, kFixed32 };

  uint32_t number;
  Wire wire;
  uint64_t value = 0;       // kVarint, kFixed64, kFixed32
  absl::string_view bytes;  // kBytes: a view into the message

  bool AsBool() const { return value != 0; }
  // Negative numbers are written as 64 bits.
  int32_t AsInt32() const { return static_cast<int32_t>(static_cast<uint32_t>(value)); }
  float AsFloat() const {
    const uint32_t bits = static_cast<uint32_t>(value);
    float number_value;
    std::memcpy(&number_value, &bits, sizeof(number_value));
    return number_value;
  }
};

class ProtoReader {
 public:
  explicit ProtoReader(absl::string_view message) : rest_(message) {}

  // The next field. False at the end and at the first byte that is not well formed.
  bool Next(ProtoField* field);

  bool failed() const { return failed_; }

 private:
  bool ReadVarint(uint64_t* value);
  bool ReadFixed(size_t size, uint64_t* value);
  bool ReadField(ProtoField* field);

  absl::string_view rest_;
  bool failed_ = false;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_PROTO_READER_H_
