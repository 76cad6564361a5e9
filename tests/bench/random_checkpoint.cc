#include "tests/bench/random_checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/tensor_table.h"

namespace sluice {
namespace {

constexpr int64_t kBlock = 1 << 22;  // random values that are repeated

// bf16 numbers around `mean`.
std::vector<uint16_t> RandomBlock(float mean, float deviation) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<uint16_t> block(kBlock);
  for (uint16_t& value : block) {
    const float x = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    value = static_cast<uint16_t>(bits >> 16);
  }
  return block;
}

bool WriteWeights(const std::string& path, const TensorTable& table) {
  std::vector<std::string> headers;
  std::vector<const TableEntry*> entries;
  std::set<std::string> seen;
  int64_t bytes = 0;
  for (const TableEntry& entry : table.entries()) {
    if (entry.names.empty() || !seen.insert(entry.names.front()).second) continue;
    const int64_t end = bytes + entry.elements() * 2;
    headers.push_back(absl::StrCat("\"", entry.names.front(), "\":{\"dtype\":\"BF16\",\"shape\":[",
                                   absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[", bytes,
                                   ",", end, "]}"));
    entries.push_back(&entry);
    bytes = end;
  }
  std::string header = absl::StrCat("{", absl::StrJoin(headers, ","), "}");
  header.append((8 - header.size() % 8) % 8, ' ');
  std::ofstream file(path, std::ios::binary);
  const uint64_t size = header.size();
  file.write(reinterpret_cast<const char*>(&size), sizeof size);
  file << header;
  // Vectors are norms' weights, for the most part.
  const std::vector<uint16_t> matrix = RandomBlock(0.0f, 0.02f), vector = RandomBlock(1.0f, 0.02f);
  for (const TableEntry* entry : entries) {
    const std::vector<uint16_t>& block = entry->rows() == 1 ? vector : matrix;
    for (int64_t left = entry->elements(); left > 0; left -= kBlock)
      file.write(reinterpret_cast<const char*>(block.data()), std::min(left, kBlock) * 2);
  }
  return file.flush().good();
}

}  // namespace

absl::StatusOr<RandomCheckpoint> RandomCheckpoint::Write(absl::string_view config) {
  absl::StatusOr<ModelConfig> parsed = ParseConfig(config, "config.json");
  if (!parsed.ok()) return parsed.status();
  TensorTable table;
  parsed->family->tensors(*parsed, TensorSource(), &table);
  const char* place = std::getenv("TMPDIR");
  std::string dir = absl::StrCat(place == nullptr ? "/dev/shm" : place, "/sluice-random-XXXXXX");
  if (mkdtemp(dir.data()) == nullptr)
    return absl::InternalError(absl::StrCat(dir, ": ", std::strerror(errno)));
  RandomCheckpoint checkpoint(dir);
  std::ofstream(dir + "/config.json") << config;
  if (!WriteWeights(dir + "/model.safetensors", table))
    return absl::InternalError(absl::StrCat(dir, ": the weights could not be written"));
  return checkpoint;
}

RandomCheckpoint::~RandomCheckpoint() {
  std::error_code ignored;
  if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
}

}  // namespace sluice
