#include "engine/state/state_header.h"

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr size_t kMaxIdBytes = 256;
constexpr size_t kMaxUndecodedBytes = 3;
constexpr uint32_t kMaxParts = 1 << 20;
constexpr uint8_t kMaxDims = 4;

// The codes of a part's numbers in a header: their DType, counted from 1.
constexpr uint8_t kFloat32 = 1;
constexpr uint8_t kLastDType = 3;
static_assert(static_cast<uint8_t>(DType::kF32) + 1 == kFloat32 &&
              static_cast<uint8_t>(DType::kBF16) + 1 == kLastDType);

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the state's header is damaged: ", what));
}

// A part's shape in a state that has seen `tokens`.
std::vector<int64_t> ShapeAt(const StatePart& part, int64_t tokens) {
  std::vector<int64_t> shape = part.shape;
  if (part.per_token) shape.insert(shape.begin(), tokens);
  return shape;
}

}  // namespace

uint32_t StateVersion(const StateTable& table) {
  for (const StatePart& part : table.parts()) {
    if (part.dtype != DType::kF32 || part.kind > StatePartKind::kConvV) return 2;
  }
  return 1;
}

void PutStateHeader(const StateInfo& info, const StateSpec& spec, ByteWriter* out) {
  out->PutString(spec.fingerprint);
  out->PutString(info.numerics_id);
  out->Put(info.position);
  out->Put(info.last_token);
  out->PutString(info.undecoded);
  const size_t parts = info.position == 0 ? 0 : spec.table.parts().size();
  out->Put(static_cast<uint32_t>(parts));
  for (size_t i = 0; i < parts; ++i) {
    const StatePart& part = spec.table.parts()[i];
    out->Put(part.layer);
    out->Put(static_cast<uint8_t>(part.kind));
    out->Put(static_cast<uint8_t>(static_cast<uint8_t>(part.dtype) + 1));
    const std::vector<int64_t> shape = ShapeAt(part, info.seen());
    out->Put(static_cast<uint8_t>(shape.size()));
    for (int64_t extent : shape) out->Put(extent);
  }
}

absl::StatusOr<StateHeader> GetStateHeader(uint32_t version, ByteReader* in) {
  const uint8_t last_dtype = version == 1 ? kFloat32 : kLastDType;
  StateHeader header;
  header.fingerprint = in->GetString(kMaxIdBytes);
  header.info.numerics_id = in->GetString(kMaxIdBytes);
  header.info.position = in->Get<int64_t>();
  header.info.last_token = in->Get<int32_t>();
  header.info.undecoded = in->GetString(kMaxUndecodedBytes);
  const auto parts = in->Get<uint32_t>();
  if (!in->ok()) return Damaged("it ends too early");
  const bool empty = header.info.position == 0;
  if (header.info.position < 0 || empty != (header.info.last_token == -1) ||
      header.info.last_token < -1) {
    return Damaged("position and last token contradict each other");
  }
  if (empty != (parts == 0) || parts > kMaxParts) return Damaged("the number of parts");
  for (uint32_t i = 0; i < parts; ++i) {
    StatePart part;
    part.layer = in->Get<int32_t>();
    part.kind = static_cast<StatePartKind>(in->Get<uint8_t>());
    const auto dtype = in->Get<uint8_t>();
    const auto dims = in->Get<uint8_t>();
    if (!in->ok() || dtype < kFloat32 || dtype > last_dtype || dims > kMaxDims) {
      return Damaged("a part");
    }
    part.dtype = static_cast<DType>(dtype - 1);
    for (uint8_t d = 0; d < dims; ++d) part.shape.push_back(in->Get<int64_t>());
    if (!in->ok()) return Damaged("a part");
    header.parts.push_back(std::move(part));
  }
  return header;
}

absl::Status CheckStateHeader(const StateHeader& header, const StateSpec& spec) {
  if (header.fingerprint != spec.fingerprint) {
    return absl::FailedPreconditionError("the state belongs to another model");
  }
  if (header.info.position == 0) return absl::OkStatus();
  if (header.parts.size() != spec.table.parts().size()) {
    return absl::InvalidArgumentError(absl::StrCat("the state has ", header.parts.size(),
                                                   " parts, this model's have ",
                                                   spec.table.parts().size()));
  }
  if (spec.table.token_bytes() > 0 && spec.max_tokens > 0 &&
      header.info.position > spec.max_tokens) {
    return absl::OutOfRangeError(absl::StrCat("the state has a history of ", header.info.position,
                                              " tokens, at most ", spec.max_tokens,
                                              " are served (--max_attention_tokens)"));
  }
  for (size_t i = 0; i < header.parts.size(); ++i) {
    const StatePart& got = header.parts[i];
    const StatePart& want = spec.table.parts()[i];
    if (got.layer != want.layer || got.kind != want.kind || got.dtype != want.dtype ||
        got.shape != ShapeAt(want, header.info.seen())) {
      return absl::InvalidArgumentError(
          absl::StrCat("part ", i, " of the state has not this model's shape"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice
