#include "engine/tokenizer/json_file.h"

#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxVocab = 1 << 24;
constexpr size_t kMaxMerges = 1 << 22;
// Values outside the two tables: added tokens have eight each.
constexpr size_t kMaxValues = 4'000'000;

// Follows the parser: the tables go to their vectors, everything else to a document.
class Reader : public nlohmann::json_sax<json> {
 public:
  explicit Reader(TokenizerJson* out) : out_(out) {}

  const absl::Status& status() const { return status_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(double value, const std::string&) override { return Value(value); }
  bool string(std::string& value) override {
    if (table_ == Table::kMerges) return MergeText(value);
    return Value(std::move(value));
  }
  bool binary(json::binary_t&) override { return Fail("binary data is not allowed"); }
  bool number_integer(int64_t value) override {
    return table_ == Table::kVocab ? VocabId(value) : Value(value);
  }
  bool number_unsigned(uint64_t value) override {
    if (table_ != Table::kVocab) return Value(value);
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
    return VocabId(value > uint64_t{kMax} ? kMax : static_cast<int64_t>(value));
  }

  bool key(std::string& value) override {
    key_ = std::move(value);
    if (depth_ == 1) section_ = key_;
    return true;
  }

  bool start_object(size_t) override {
    if (table_ != Table::kNone) return WrongEntry();
    if (!Enter()) return false;
    if (AtTable("vocab")) {
      table_ = Table::kVocab;
      return true;
    }
    return Open(json::object());
  }

  bool start_array(size_t) override {
    if (table_ == Table::kMerges && depth_ == kTableDepth) {
      pair_size_ = 0;
      return Enter();
    }
    if (table_ != Table::kNone) return WrongEntry();
    if (!Enter()) return false;
    if (AtTable("merges")) {
      table_ = Table::kMerges;
      out_->has_merges = true;
      return true;
    }
    return Open(json::array());
  }

  bool end_object() override { return Leave(); }

  bool end_array() override {
    if (table_ == Table::kMerges && depth_ == kTableDepth + 1) {
      if (pair_size_ != 2) return WrongEntry();
      --depth_;
      return true;
    }
    return Leave();
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

 private:
  enum class Table : uint8_t { kNone, kVocab, kMerges };
  // Containers open inside model.vocab and model.merges.
  static constexpr size_t kTableDepth = 3;

  bool Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::move(message));
    return false;
  }

  bool WrongEntry() {
    if (table_ == Table::kVocab) {
      return Fail(
          absl::StrCat("model.vocab: the id of piece ", out_->vocab.size(), " is not an integer"));
    }
    return Fail(absl::StrCat("model.merges[", out_->merges.size(),
                             "]: is neither \"left right\" nor [left, right]"));
  }

  bool Enter() {
    if (++depth_ > kMaxDepth) return Fail(absl::StrCat("is nested deeper than ", kMaxDepth));
    return true;
  }

  // True if the container just entered is the table `name` of the model.
  bool AtTable(absl::string_view name) const {
    return depth_ == kTableDepth && section_ == "model" && key_ == name;
  }

  bool Leave() {
    --depth_;
    if (table_ != Table::kNone) {
      table_ = Table::kNone;
    } else {
      open_.pop_back();
    }
    return true;
  }

  bool Open(json container) {
    json* place = Place(std::move(container));
    if (place == nullptr) return false;
    open_.push_back(place);
    return true;
  }

  bool Value(json value) {
    if (table_ != Table::kNone) return WrongEntry();
    return Place(std::move(value)) != nullptr;
  }

  // Puts `value` where the parser is. Null when there are too many.
  json* Place(json value) {
    if (++values_ > kMaxValues) {
      Fail(absl::StrCat("has more than ", kMaxValues,
                        " values outside model.vocab and model.merges"));
      return nullptr;
    }
    if (open_.empty()) {
      out_->rest = std::move(value);
      return &out_->rest;
    }
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool VocabId(int64_t id) {
    if (out_->vocab.size() == kMaxVocab) {
      return Fail(absl::StrCat("model.vocab: has more than ", kMaxVocab, " pieces"));
    }
    out_->vocab.emplace_back(std::move(key_), id);
    return true;
  }

  bool MergeText(std::string& text) {
    std::vector<std::pair<std::string, std::string>>& merges = out_->merges;
    if (depth_ == kTableDepth) {
      // A line of merges.txt may have come along.
      if (absl::StartsWith(text, "#version")) return true;
      const std::vector<absl::string_view> sides = absl::StrSplit(text, ' ');
      if (sides.size() != 2) return WrongEntry();
      merges.emplace_back(sides[0], sides[1]);
    } else if (pair_size_++ == 0) {
      left_ = std::move(text);
      return true;
    } else if (pair_size_ == 2) {
      merges.emplace_back(std::move(left_), std::move(text));
    } else {
      return WrongEntry();
    }
    if (merges.size() > kMaxMerges) {
      return Fail(absl::StrCat("model.merges: has more than ", kMaxMerges, " entries"));
    }
    return true;
  }

  TokenizerJson* const out_;
  absl::Status status_;
  Table table_ = Table::kNone;
  size_t depth_ = 0;
  size_t values_ = 0;
  std::string section_;  // key of the outermost object
  std::string key_;
  std::string left_;
  int pair_size_ = 0;
  std::vector<json*> open_;
};

}  // namespace

absl::StatusOr<TokenizerJson> ParseTokenizerJson(absl::string_view bytes) {
  // The parser takes a NUL byte for the end of the text.
  if (const size_t nul = bytes.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("is not valid JSON at byte ", nul + 1));
  }
  TokenizerJson parsed;
  Reader reader(&parsed);
  json::sax_parse(bytes.data(), bytes.data() + bytes.size(), &reader);
  if (!reader.status().ok()) return reader.status();
  if (!parsed.rest.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  return parsed;
}

JsonField JsonField::At(absl::string_view key) const {
  std::string name = name_.empty() ? std::string(key) : absl::StrCat(name_, ".", key);
  if (!is_object()) return JsonField(nullptr, std::move(name));
  const auto it = value_->find(std::string(key));
  return JsonField(it == value_->end() ? nullptr : &*it, std::move(name));
}

std::vector<std::string> JsonField::Keys() const {
  std::vector<std::string> keys;
  if (!is_object()) return keys;
  for (const auto& item : value_->items()) keys.push_back(item.key());
  return keys;
}

std::vector<JsonField> JsonField::Elements(absl::Status* status) const {
  std::vector<JsonField> elements;
  if (!is_array()) {
    Fail("must be an array", status);
    return elements;
  }
  elements.reserve(value_->size());
  for (const json& element : *value_) {
    elements.emplace_back(&element, absl::StrCat(name_, "[", elements.size(), "]"));
  }
  return elements;
}

bool JsonField::Bool(bool fallback, absl::Status* status) const {
  if (is_null()) return fallback;
  if (value_->is_boolean()) return value_->get<bool>();
  Fail("must be true or false", status);
  return fallback;
}

std::string JsonField::String(absl::Status* status) const {
  if (!is_null() && value_->is_string()) return value_->get<std::string>();
  Fail("must be a string", status);
  return "";
}

int64_t JsonField::Integer(absl::Status* status) const {
  if (is_null() || !value_->is_number_integer()) {
    Fail("must be an integer", status);
    return 0;
  }
  if (value_->is_number_unsigned() &&
      value_->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    Fail("is too large", status);
    return 0;
  }
  return value_->get<int64_t>();
}

double JsonField::Number(double fallback, absl::Status* status) const {
  if (is_null()) return fallback;
  if (value_->is_number()) return value_->get<double>();
  Fail("must be a number", status);
  return fallback;
}

void JsonField::Fail(absl::string_view rule, absl::Status* status) const {
  if (status->ok()) *status = absl::InvalidArgumentError(absl::StrCat(name_, ": ", rule));
}

}  // namespace sluice
