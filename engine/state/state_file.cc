#include "engine/state/state_file.h"

#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr absl::string_view kMagic = "SLUSTATE";
constexpr size_t kSummedPrefix = 24;  // what the header's sum covers of the prefix
constexpr size_t kPrefix = 32;

uint64_t HeaderSum(absl::string_view prefix, absl::string_view header) {
  std::string both(prefix.substr(0, kSummedPrefix));
  both.append(header.data(), header.size());
  return XXH3_64bits(both.data(), both.size());
}

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(std::string("a state file is damaged: ") + std::string(what));
}

}  // namespace

std::string EncodeStateFilePrefix(const StateInfo& info, const StateSpec& spec,
                                  absl::string_view data) {
  ByteWriter header;
  PutStateHeader(info, spec, &header);
  ByteWriter out;
  out.PutRaw(kMagic);
  out.Put(StateVersion(spec.table));
  out.Put(static_cast<uint32_t>(header.bytes().size()));
  out.Put(static_cast<uint64_t>(XXH3_64bits(data.data(), data.size())));
  out.Put(HeaderSum(out.bytes(), header.bytes()));
  out.PutRaw(header.bytes());
  return out.bytes();
}

absl::StatusOr<StateData> ReadStateFile(Files* files, const std::string& path,
                                        const StateSpec& spec, StateInfo* info) {
  const absl::StatusOr<int64_t> size = files->Size(path);
  if (!size.ok()) return size.status();
  if (*size < static_cast<int64_t>(kPrefix)) return Damaged("it ends too early");
  std::string prefix(kPrefix, '\0');
  absl::Status read = files->ReadAt(path, 0, absl::MakeSpan(prefix));
  if (!read.ok()) return read;
  ByteReader reader(prefix);
  if (reader.GetRaw(kMagic.size()) != kMagic) return Damaged("its first bytes");
  const auto version = reader.Get<uint32_t>();
  const auto header_bytes = reader.Get<uint32_t>();
  const auto data_sum = reader.Get<uint64_t>();
  const auto header_sum = reader.Get<uint64_t>();
  if (header_bytes > *size - static_cast<int64_t>(kPrefix)) return Damaged("its header's size");
  std::string header_text(header_bytes, '\0');
  read = files->ReadAt(path, kPrefix, absl::MakeSpan(header_text));
  if (!read.ok()) return read;
  if (HeaderSum(prefix, header_text) != header_sum) return Damaged("its header's checksum");
  if (version == 0 || version > kStateVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the state file ", path.substr(path.rfind('/') + 1), " is of format ", version,
        ", which a newer version of Sluice wrote: this one reads up to ", kStateVersion));
  }
  ByteReader header_reader(header_text);
  const absl::StatusOr<StateHeader> header = GetStateHeader(version, &header_reader);
  if (!header.ok()) return header.status();
  if (!header_reader.done()) return Damaged("its header's size");
  const absl::Status fits = CheckStateHeader(*header, spec);
  if (!fits.ok()) return fits;
  const int64_t data_begin = static_cast<int64_t>(kPrefix) + header_bytes;
  if (*size - data_begin != header->data_bytes(spec)) return Damaged("its size");
  StateData data(static_cast<size_t>(header->data_bytes(spec)));
  read = files->ReadAt(path, data_begin, absl::MakeSpan(data));
  if (!read.ok()) return read;
  if (XXH3_64bits(data.data(), data.size()) != data_sum) {
    return Damaged("its checksum");
  }
  *info = header->info;
  return data;
}

}  // namespace sluice
