#include "engine/checkpoint/safetensors.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

struct StoredType {
  const char* name;
  int64_t bytes;
};

constexpr StoredType kStoredTypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
    {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},
};

absl::Status Error(absl::string_view file_name, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(file_name, ": ", message));
}

absl::Status TensorError(absl::string_view file_name, absl::string_view tensor,
                         absl::string_view message) {
  return Error(file_name, absl::StrCat("tensor ", Printable(tensor), " ", message));
}

// Takes the parser's events; any step off the path of the format ends the parse. Nothing is built
// but the map.
class HeaderReader {
 public:
  HeaderReader(int64_t data_begin, int64_t data_size, absl::string_view file_name)
      : data_begin_(data_begin), data_size_(data_size), file_name_(file_name) {}

  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_integer(Json::number_integer_t) { return Unexpected("a negative number"); }
  bool number_float(Json::number_float_t, const Json::string_t&) {
    return Unexpected("a number that is not an integer below 2^64");
  }
  bool binary(Json::binary_t&) { return Unexpected("binary data"); }

  bool number_unsigned(Json::number_unsigned_t value) {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Unexpected("a number");
    std::vector<int64_t>& list = place_ == Place::kShape ? tensor_.shape : offsets_;
    const int limit = place_ == Place::kShape ? kMaxSafetensorsRank : 2;
    if (static_cast<int>(list.size()) == limit) {
      return FailTensor(place_ == Place::kShape
                            ? absl::StrCat("has more than ", kMaxSafetensorsRank, " dimensions")
                            : "must have two data_offsets");
    }
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return FailTensor(absl::StrCat("has the number ", value, ", must be below 2^63"));
    }
    list.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(Json::string_t& value) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != kDtype) return Unexpected("a string");
    for (const StoredType& type : kStoredTypes) {
      if (value != type.name) continue;
      tensor_.dtype = type.name;
      element_bytes_ = type.bytes;
      return true;
    }
    return FailTensor(absl::StrCat("has the unknown dtype \"", Printable(value), "\""));
  }

  bool start_object(size_t) {
    if (place_ == Place::kStart) {
      place_ = Place::kTensors;
    } else if (place_ == Place::kTensors && name_ == "__metadata__") {
      if (std::exchange(has_metadata_, true)) return Fail("__metadata__ appears twice");
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTensors) {
      place_ = Place::kTensor;
      tensor_ = TensorInfo();
      offsets_.clear();
      seen_ = 0;
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool key(Json::string_t& key) {
    if (place_ == Place::kTensors) {
      name_ = std::move(key);
    } else if (place_ == Place::kTensor) {
      field_ = key == "dtype"          ? kDtype
               : key == "shape"        ? kShape
               : key == "data_offsets" ? kOffsets
                                       : 0;
      if (field_ == 0)
        return FailTensor(absl::StrCat("has the unknown field \"", Printable(key), "\""));
      if ((seen_ & field_) != 0) return FailTensor(absl::StrCat("has ", key, " twice"));
      seen_ |= field_;
    }
    return true;
  }

  bool end_object() {
    if (place_ == Place::kTensor && !FinishTensor()) return false;
    place_ = place_ == Place::kTensors ? Place::kEnd : Place::kTensors;
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::kTensor || field_ == kDtype) return Unexpected("a list");
    place_ = field_ == kShape ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception&) {
    return Fail(absl::StrCat("header is not valid JSON in UTF-8 at byte ", position));
  }

  absl::Status& status() { return status_; }
  TensorMap& tensors() { return tensors_; }

 private:
  enum class Place { kStart, kTensors, kMetadata, kTensor, kShape, kOffsets, kEnd };
  enum : int { kDtype = 1, kShape = 2, kOffsets = 4 };

  bool Fail(absl::string_view message) {
    status_ = Error(file_name_, message);
    return false;
  }
  bool FailTensor(absl::string_view message) {
    status_ = TensorError(file_name_, name_, message);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    switch (place_) {
      case Place::kStart:
      case Place::kEnd:
        return Fail(absl::StrCat("header is ", what, ", must be a JSON object"));
      case Place::kMetadata:
        return Fail(absl::StrCat("__metadata__ holds ", what, ", must hold strings only"));
      case Place::kTensors:
        return FailTensor(absl::StrCat("is ", what, ", must be an object"));
      case Place::kShape:
        return FailTensor(absl::StrCat("has ", what, " in its shape"));
      case Place::kOffsets:
        return FailTensor(absl::StrCat("has ", what, " in its data_offsets"));
      case Place::kTensor:
        break;
    }
    const char* field = field_ == kDtype ? "dtype" : field_ == kShape ? "shape" : "data_offsets";
    return FailTensor(absl::StrCat("has ", what, " for its ", field));
  }

  bool FinishTensor() {
    if (seen_ != (kDtype | kShape | kOffsets))
      return FailTensor("must have dtype, shape and data_offsets");
    if (offsets_.size() != 2) return FailTensor("must have two data_offsets");
    int64_t bytes = element_bytes_;
    for (const int64_t extent : tensor_.shape) {
      if (__builtin_mul_overflow(bytes, extent, &bytes)) {
        return FailTensor(
            absl::StrCat("has shape ", ShapeText(tensor_.shape), ", whose size overflows"));
      }
    }
    const int64_t begin = offsets_[0];
    const int64_t end = offsets_[1];
    const std::string range = absl::StrCat("has data_offsets [", begin, ", ", end, "]");
    if (begin > end) return FailTensor(absl::StrCat(range, " in the wrong order"));
    if (end > data_size_) {
      return FailTensor(
          absl::StrCat(range, " beyond the ", data_size_, " bytes of data in the file"));
    }
    if (end - begin != bytes) {
      return FailTensor(absl::StrCat(range, ", but its shape ", ShapeText(tensor_.shape), " takes ",
                                     bytes, " bytes"));
    }
    tensor_.begin = data_begin_ + begin;
    tensor_.end = data_begin_ + end;
    if (static_cast<int64_t>(tensors_.size()) == kMaxSafetensorsTensors) {
      return Fail(absl::StrCat("has more than ", kMaxSafetensorsTensors, " tensors"));
    }
    if (!tensors_.try_emplace(name_, std::move(tensor_)).second) return FailTensor("appears twice");
    return true;
  }

  const int64_t data_begin_;
  const int64_t data_size_;
  const absl::string_view file_name_;

  Place place_ = Place::kStart;
  bool has_metadata_ = false;
  std::string name_;  // of the tensor being read
  TensorInfo tensor_;
  std::vector<int64_t> offsets_;
  int64_t element_bytes_ = 0;
  int field_ = 0;
  int seen_ = 0;
  TensorMap tensors_;
  absl::Status status_;
};

absl::Status CheckCoverage(const TensorMap& tensors, int64_t data_begin, int64_t file_size,
                           absl::string_view file_name) {
  std::vector<const TensorMap::value_type*> order;
  order.reserve(tensors.size());
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::make_pair(a->second.begin, a->second.end) <
           std::make_pair(b->second.begin, b->second.end);
  });
  int64_t covered = data_begin;
  for (const auto* tensor : order) {
    const int64_t begin = tensor->second.begin;
    if (begin != covered) {
      return TensorError(file_name, tensor->first,
                         absl::StrCat("begins at data offset ", begin - data_begin,
                                      ", must follow the one before at ", covered - data_begin,
                                      begin < covered ? ": they overlap" : ": there is a hole"));
    }
    covered = tensor->second.end;
  }
  if (covered != file_size) {
    return Error(file_name,
                 absl::StrCat("has ", file_size - covered, " bytes after the last tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<int64_t> ParseSafetensorsPrefix(absl::string_view prefix, int64_t file_size,
                                               absl::string_view file_name) {
  if (file_size < kSafetensorsPrefixBytes || prefix.size() < kSafetensorsPrefixBytes) {
    return Error(file_name,
                 absl::StrCat("has ", file_size, " bytes, too short for a safetensors file"));
  }
  uint64_t length = 0;
  for (int i = 0; i < kSafetensorsPrefixBytes; ++i) {
    length |= static_cast<uint64_t>(static_cast<uint8_t>(prefix[i])) << (8 * i);
  }
  if (length < 2 || length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return Error(file_name, absl::StrCat("header has ", length, " bytes, must be in [2, ",
                                         kMaxSafetensorsHeaderBytes, "]"));
  }
  const auto result = static_cast<int64_t>(length);
  if (result > file_size - kSafetensorsPrefixBytes) {
    return Error(file_name, absl::StrCat("header has ", result, " bytes, but the file ends after ",
                                         file_size - kSafetensorsPrefixBytes));
  }
  return result;
}

absl::StatusOr<TensorMap> ParseSafetensorsHeader(absl::string_view header, int64_t file_size,
                                                 absl::string_view file_name) {
  const auto data_begin = kSafetensorsPrefixBytes + static_cast<int64_t>(header.size());
  if (file_size < data_begin) return Error(file_name, "ends within its header");
  // The parser skips a byte order mark and takes a NUL byte for the end; the format has neither.
  if (header.empty() || header[0] != '{') return Error(file_name, "header must begin with '{'");
  if (header.find('\0') != absl::string_view::npos)
    return Error(file_name, "header holds a NUL byte");
  HeaderReader reader(data_begin, file_size - data_begin, file_name);
  if (!Json::sax_parse(header.begin(), header.end(), &reader)) return reader.status();
  absl::Status status = CheckCoverage(reader.tensors(), data_begin, file_size, file_name);
  if (!status.ok()) return status;
  return std::move(reader.tensors());
}

}  // namespace sluice
