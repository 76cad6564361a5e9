#include "engine/state/state_blob.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/state_file.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr absl::string_view kMagic = "SLUEXPRT";
constexpr size_t kPrefix = 32;
constexpr size_t kMaxTenantBytes = 256;
// Far above what any model's parts take, far below what would hurt.
constexpr uint32_t kMaxHeaderBytes = 4 << 20;

// Index of the first of a part's numbers that is a NaN or an infinity; -1: none is.
int64_t FirstNonFinite(const StatePart& part, int64_t elements, const char* numbers) {
  const auto find = [&](auto exponent) -> int64_t {
    for (int64_t i = 0; i < elements; ++i) {
      auto bits = exponent;
      std::memcpy(&bits, numbers + i * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
      if ((bits & exponent) == exponent) return i;
    }
    return -1;
  };
  switch (part.dtype) {
    case DType::kF32:
      return find(uint32_t{0x7f800000});
    case DType::kF16:
      return find(uint16_t{0x7c00});
    case DType::kBF16:
      return find(uint16_t{0x7f80});
  }
  return -1;
}

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the exported bytes are damaged: ", what));
}

}  // namespace

BlobWriter::BlobWriter(const StateKeys& keys, absl::string_view tenant, const StateSpec& spec,
                       const StateInfo& info, std::shared_ptr<const StateData> data)
    : data_(data != nullptr ? std::move(data) : std::make_shared<const StateData>()),
      mac_(keys.front().secret) {
  const int64_t bytes = info.position == 0 ? 0 : spec.table.BytesAt(info.seen());
  SLUICE_CHECK(static_cast<int64_t>(data_->size()) == bytes);
  ByteWriter header;
  header.PutString(tenant);
  PutStateHeader(info, spec, &header);
  ByteWriter out;
  out.PutRaw(kMagic);
  out.Put(StateVersion(spec.table));
  out.Put(static_cast<uint32_t>(header.bytes().size()));
  out.PutRaw(keys.front().id);
  out.PutRaw(header.bytes());
  Mac head_mac(keys.front().secret);
  head_mac.Add(out.bytes());
  out.PutRaw(head_mac.Finish());
  head_ = out.bytes();
  mac_.Add(head_);
}

std::string BlobWriter::Next(size_t max_bytes) {
  const absl::string_view body = AsBytes(*data_);
  std::string out;
  const auto append = [&](absl::string_view part, size_t begin, bool sum) {
    if (offset_ < begin || offset_ >= begin + part.size()) return;
    const absl::string_view piece = part.substr(offset_ - begin, max_bytes - out.size());
    if (sum) mac_.Add(piece);
    out.append(piece.data(), piece.size());
    offset_ += piece.size();
  };
  append(head_, 0, false);
  append(body, head_.size(), true);
  const size_t tail_begin = head_.size() + body.size();
  if (offset_ >= tail_begin && tail_.empty()) tail_ = mac_.Finish();
  append(tail_, tail_begin, false);
  return out;
}

BlobReader::BlobReader(const StateKeys* keys, absl::string_view tenant, const StateSpec* spec,
                       Verify verify)
    : keys_(keys), tenant_(tenant), spec_(spec), verify_(verify), head_bytes_(kPrefix) {}

absl::Status BlobReader::Add(absl::string_view piece) {
  while (status_.ok() && !piece.empty()) status_ = Take(&piece);
  return status_;
}

absl::Status BlobReader::Take(absl::string_view* piece) {
  if (!head_done_) return TakeHead(piece);
  const size_t all = state_.data.size();
  if (data_bytes_ < all) {
    const absl::string_view bytes = piece->substr(0, all - data_bytes_);
    std::memcpy(state_.data.data() + data_bytes_, bytes.data(), bytes.size());
    if (mac_.has_value()) mac_->Add(bytes);
    data_bytes_ += bytes.size();
    piece->remove_prefix(bytes.size());
    return absl::OkStatus();
  }
  const absl::string_view bytes = piece->substr(0, kMacBytes - tail_.size());
  tail_.append(bytes.data(), bytes.size());
  piece->remove_prefix(bytes.size());
  return piece->empty() ? absl::OkStatus() : Damaged("there are more of them than there should be");
}

absl::Status BlobReader::TakeHead(absl::string_view* piece) {
  const absl::string_view bytes = piece->substr(0, head_bytes_ - head_.size());
  head_.append(bytes.data(), bytes.size());
  piece->remove_prefix(bytes.size());
  if (head_.size() < head_bytes_) return absl::OkStatus();
  return head_bytes_ == kPrefix ? ReadPrefix() : ReadHeader();
}

absl::Status BlobReader::ReadPrefix() {
  ByteReader in(head_);
  if (in.GetRaw(kMagic.size()) != kMagic) return Damaged("they begin with something else");
  version_ = in.Get<uint32_t>();
  if (version_ == 0 || version_ > kStateVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the exported bytes are of format ", version_,
        ", which a newer version of Sluice wrote: this one reads up to ", kStateVersion));
  }
  const auto header_bytes = in.Get<uint32_t>();
  if (header_bytes == 0 || header_bytes > kMaxHeaderBytes) return Damaged("the header's size");
  head_bytes_ = kPrefix + header_bytes + kMacBytes;
  if (verify_ == Verify::kNo) return absl::OkStatus();
  const absl::string_view id = in.GetRaw(kKeyIdBytes);
  for (const StateKey& key : *keys_) {
    if (key.id == id) key_ = &key;
  }
  if (key_ == nullptr) {
    return absl::PermissionDeniedError("the exported bytes were signed with a key not known here");
  }
  mac_.emplace(key_->secret);
  return absl::OkStatus();
}

absl::Status BlobReader::ReadHeader() {
  const absl::string_view head = head_;
  const absl::string_view signed_part = head.substr(0, head.size() - kMacBytes);
  if (verify_ == Verify::kYes) {
    Mac mac(key_->secret);
    mac.Add(signed_part);
    if (!EqualInConstantTime(mac.Finish(), head.substr(signed_part.size()))) {
      return Damaged("the header's signature");
    }
    mac_->Add(head_);
  }
  ByteReader in(signed_part.substr(kPrefix));
  const std::string tenant = in.GetString(kMaxTenantBytes);
  absl::StatusOr<StateHeader> header = GetStateHeader(version_, &in);
  if (!header.ok()) return header.status();
  if (!in.done()) return Damaged("the header's size");
  if (tenant != tenant_) {
    return absl::PermissionDeniedError("the exported state belongs to another tenant");
  }
  const absl::Status fits = CheckStateHeader(*header, *spec_);
  if (!fits.ok()) return fits;
  state_.data.resize(static_cast<size_t>(header->data_bytes(*spec_)));
  state_.info = std::move(header->info);
  head_done_ = true;
  return absl::OkStatus();
}

absl::StatusOr<BlobState> BlobReader::Finish() {
  if (!status_.ok()) return status_;
  if (tail_.size() < kMacBytes) return Damaged("they end too early");
  if (verify_ == Verify::kYes && !EqualInConstantTime(mac_->Finish(), tail_)) {
    return Damaged("the signature");
  }
  if (state_.data.empty()) return std::move(state_);
  const int64_t seen = state_.info.seen();
  int64_t before = 0;  // numbers of earlier parts
  for (const StatePart& part : spec_->table.parts()) {
    const int64_t elements = part.BytesAt(seen) / DTypeBytes(part.dtype);
    const int64_t bad = FirstNonFinite(part, elements, state_.data.data() + part.OffsetAt(seen));
    if (bad >= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("number ", before + bad, " of the exported state is not finite"));
    }
    before += elements;
  }
  return std::move(state_);
}

}  // namespace sluice
