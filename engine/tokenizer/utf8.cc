#include "engine/tokenizer/utf8.h"

#include <algorithm>

namespace sluice {
namespace {

// A lead byte: how many bytes its character has, and what the second may be (Unicode, table 3-7).
struct Lead {
  uint8_t size;
  uint8_t second_min;
  uint8_t second_max;
};

Lead ReadLead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Prefix ReadUtf8Prefix(absl::string_view text) {
  const Lead lead = ReadLead(static_cast<uint8_t>(text[0]));
  if (lead.size == 0) return {Utf8Kind::kInvalid, 1};
  for (uint8_t i = 1; i < lead.size; ++i) {
    if (i == text.size()) return {Utf8Kind::kIncomplete, i};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kWhole, lead.size};
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Prefix prefix = ReadUtf8Prefix(text);
    if (prefix.kind != Utf8Kind::kWhole) return false;
    text.remove_prefix(prefix.size);
  }
  return true;
}

size_t IncompleteSuffix(absl::string_view text) {
  for (size_t size = std::min<size_t>(3, text.size()); size > 0; --size) {
    const Utf8Prefix prefix = ReadUtf8Prefix(text.substr(text.size() - size));
    if (prefix.kind == Utf8Kind::kIncomplete && prefix.size == size) return size;
  }
  return 0;
}

std::string ToValidUtf8(absl::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const Utf8Prefix prefix = ReadUtf8Prefix(text);
    const absl::string_view character =
        prefix.kind == Utf8Kind::kWhole ? text.substr(0, prefix.size) : kReplacementCharacter;
    valid.append(character.data(), character.size());
    text.remove_prefix(prefix.size);
  }
  return valid;
}

size_t Utf8CharSize(absl::string_view text) {
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  const size_t size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return std::min(size, text.size());
}

char32_t Utf8CharCode(absl::string_view text) {
  const size_t size = Utf8CharSize(text);
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  char32_t code = size == 1 ? lead : lead & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) code = code << 6 | (static_cast<uint8_t>(text[i]) & 0x3F);
  return code;
}

void AppendUtf8(char32_t code, std::string* out) {
  const auto tail = [&](int shift) {
    out->push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3F)));
  };
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (code >> 6)));
    tail(0);
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (code >> 12)));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xF0 | (code >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

bool IsUnicodeSpace(char32_t code) {
  return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

}  // namespace sluice
