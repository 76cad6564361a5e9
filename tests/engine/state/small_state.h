// A model so small that every byte of its states can be tried.
#ifndef SLUICE_TESTS_ENGINE_STATE_SMALL_STATE_H_
#define SLUICE_TESTS_ENGINE_STATE_SMALL_STATE_H_

#include <cstring>

#include "engine/checkpoint/families/gla.h"
#include "engine/state/session_record.h"
#include "engine/state/state_header.h"

namespace sluice {

inline GlaShape SmallShape() {
  GlaShape shape;
  shape.layers = 2;
  shape.heads = shape.kv_heads = 1;
  shape.dk = 2;
  shape.dv = 3;
  shape.conv_size = 2;
  return shape;
}

inline StateSpec SmallSpec() { return {"fingerprint", MakeStateTable(SmallShape().Spec())}; }

// Numbers that tell which state they are of.
inline StateData SmallData(int seed) {
  StateData data(static_cast<size_t>(SmallSpec().table.bytes()));
  for (size_t i = 0; i < data.size() / sizeof(float); ++i) {
    const float number = static_cast<float>(seed) + 0.5f * i;
    std::memcpy(data.data() + i * sizeof(float), &number, sizeof(number));
  }
  return data;
}

inline StateInfo SmallInfo(int seed) { return {100 + seed, seed, "\xE2\x82", "numerics"}; }

inline SessionRecord SmallRecord(const std::string& id, uint64_t generation, int seed) {
  SessionRecord record;
  record.tenant = "tenant/..";
  record.id = id;
  record.affinity = "near";
  record.generation = generation;
  record.etag = "etag-" + std::to_string(seed);
  record.info = SmallInfo(seed);
  record.fingerprint = "fingerprint";
  record.last_request_id = "request";
  record.create_time_us = 1;
  record.update_time_us = 2;
  record.ttl_us = 3;
  record.labels = {{"a", "b"}, {"c", ""}};
  return record;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_ENGINE_STATE_SMALL_STATE_H_
