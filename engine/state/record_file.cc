#include "engine/state/record_file.h"

#include <xxhash.h>

#include "engine/state/bytes.h"

namespace sluice {
namespace {

constexpr absl::string_view kMagic = "SLUSESSN";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kVersionWithNote = 2;
constexpr size_t kSummedPrefix = 16;
constexpr size_t kMaxText = 1024;
constexpr uint32_t kMaxLabels = 64;

uint64_t Sum(absl::string_view prefix, absl::string_view body) {
  std::string both(prefix.substr(0, kSummedPrefix));
  both.append(body.data(), body.size());
  return XXH3_64bits(both.data(), both.size());
}

}  // namespace

std::string EncodeRecordFile(const SessionRecord& record) {
  ByteWriter body;
  for (const std::string* text :
       {&record.tenant, &record.id, &record.affinity, &record.etag, &record.fingerprint,
        &record.info.numerics_id, &record.info.undecoded, &record.state_id,
        &record.last_request_id}) {
    body.PutString(*text);
  }
  body.Put(record.generation);
  body.Put(record.info.position);
  body.Put(record.info.last_token);
  body.Put(record.create_time_us);
  body.Put(record.update_time_us);
  body.Put(record.ttl_us);
  body.Put(static_cast<uint32_t>(record.labels.size()));
  for (const auto& [key, value] : record.labels) {
    body.PutString(key);
    body.PutString(value);
  }
  body.Put(static_cast<uint32_t>(record.lineage.size()));
  for (const uint64_t name : record.lineage) body.Put(name);
  // Daemons of older releases read every record that can do without one.
  const bool has_note = !record.info.note.empty();
  if (has_note) body.PutString(record.info.note);
  ByteWriter out;
  out.PutRaw(kMagic);
  out.Put(has_note ? kVersionWithNote : kVersion);
  out.Put(static_cast<uint32_t>(body.bytes().size()));
  out.Put(Sum(out.bytes(), body.bytes()));
  out.PutRaw(body.bytes());
  return out.bytes();
}

absl::StatusOr<SessionRecord> ParseRecordFile(absl::string_view bytes) {
  const absl::Status damaged = absl::DataLossError("a session's record is damaged");
  ByteReader prefix(bytes);
  if (prefix.GetRaw(kMagic.size()) != kMagic) return damaged;
  const auto version = prefix.Get<uint32_t>();
  const auto size = prefix.Get<uint32_t>();
  const auto sum = prefix.Get<uint64_t>();
  const absl::string_view body = prefix.GetRaw(size);
  if (!prefix.done() || Sum(bytes, body) != sum) return damaged;
  if (version != kVersion && version != kVersionWithNote) {
    return absl::FailedPreconditionError("the session's record is of another version of Sluice");
  }

  ByteReader in(body);
  SessionRecord record;
  for (std::string* text : {&record.tenant, &record.id, &record.affinity, &record.etag,
                            &record.fingerprint, &record.info.numerics_id, &record.info.undecoded,
                            &record.state_id, &record.last_request_id}) {
    *text = in.GetString(kMaxText);
  }
  record.generation = in.Get<uint64_t>();
  record.info.position = in.Get<int64_t>();
  record.info.last_token = in.Get<int32_t>();
  record.create_time_us = in.Get<int64_t>();
  record.update_time_us = in.Get<int64_t>();
  record.ttl_us = in.Get<int64_t>();
  const auto labels = in.Get<uint32_t>();
  if (labels > kMaxLabels) return damaged;
  for (uint32_t i = 0; i < labels; ++i) {
    std::string key = in.GetString(kMaxText);
    record.labels[std::move(key)] = in.GetString(kMaxText);
  }
  const auto lineage = in.Get<uint32_t>();
  if (lineage > kMaxLineage) return damaged;
  for (uint32_t i = 0; i < lineage; ++i) record.lineage.push_back(in.Get<uint64_t>());
  if (version == kVersionWithNote) record.info.note = in.GetString(kMaxText);
  const bool empty = record.info.position == 0;
  if (!in.done() || record.info.position < 0 || record.info.undecoded.size() > 3 ||
      empty != record.state_id.empty() || empty != (record.info.last_token == -1)) {
    return damaged;
  }
  return record;
}

}  // namespace sluice
