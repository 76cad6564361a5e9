#include "engine/tokenizer/proto_reader.h"

namespace sluice {

bool ProtoReader::ReadVarint(uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return false;
    const uint8_t byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    *value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool ProtoReader::ReadFixed(size_t size, uint64_t* value) {
  if (rest_.size() < size) return false;
  *value = 0;
  for (size_t i = 0; i < size; ++i) {
    *value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
  }
  rest_.remove_prefix(size);
  return true;
}

bool ProtoReader::ReadField(ProtoField* field) {
  uint64_t key = 0;
  if (!ReadVarint(&key) || key >> 3 == 0 || key >> 3 > 0x1FFFFFFF) return false;
  *field = ProtoField{.number = static_cast<uint32_t>(key >> 3), .wire = {}, .bytes = {}};
  switch (key & 7) {
    case 0:
      field->wire = ProtoField::Wire::kVarint;
      return ReadVarint(&field->value);
    case 1:
      field->wire = ProtoField::Wire::kFixed64;
      return ReadFixed(8, &field->value);
    case 2: {
      field->wire = ProtoField::Wire::kBytes;
      uint64_t size = 0;
      if (!ReadVarint(&size) || size > rest_.size()) return false;
      field->bytes = rest_.substr(0, size);
      rest_.remove_prefix(size);
      return true;
    }
    case 5:
      field->wire = ProtoField::Wire::kFixed32;
      return ReadFixed(4, &field->value);
    default:  // groups, which this format has none of
      return false;
  }
}

bool ProtoReader::Next(ProtoField* field) {
  if (failed_ || rest_.empty()) return false;
  failed_ = !ReadField(field);
  return !failed_;
}

}  // namespace sluice
