// The versions of the state format: what is written as which, and what an older daemon says of a
// newer file.
#include "engine/state/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <string>

#include "engine/state/session_store.h"
#include "tests/engine/state/small_state.h"
#include "tests/fakes/fake_files.h"

namespace sluice {
namespace {

using testing::HasSubstr;

// A spec like SmallSpec(), with a part in bf16 and one that version 1 has no name for.
StateSpec NewerSpec() {
  StateSpec spec;
  spec.fingerprint = "fingerprint";
  spec.table.Add(0, StatePartKind::kMatrix, {1, 2, 3}, DType::kBF16);
  spec.table.Add(0, StatePartKind::kNormaliser, {1, 2});
  return spec;
}

StateData NewerData() {
  StateData data(static_cast<size_t>(NewerSpec().table.bytes()));
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i);
  return data;
}

std::string FileOf(const StateSpec& spec, const StateData& data) {
  return EncodeStateFilePrefix(SmallInfo(3), spec, AsBytes(data)) + std::string(AsBytes(data));
}

uint32_t VersionOf(const std::string& file) {
  uint32_t version = 0;
  std::memcpy(&version, file.data() + 8, sizeof(version));
  return version;
}

// A whole file of another version.
std::string WithVersion(std::string file, uint32_t version) {
  std::memcpy(file.data() + 8, &version, sizeof(version));
  uint32_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data() + 12, sizeof(header_bytes));
  const std::string summed = file.substr(0, 24) + file.substr(32, header_bytes);
  const uint64_t sum = XXH3_64bits(summed.data(), summed.size());
  std::memcpy(file.data() + 24, &sum, sizeof(sum));
  return file;
}

absl::StatusOr<StateData> Read(const std::string& file, const StateSpec& spec) {
  FakeFiles files;
  EXPECT_TRUE(files.WriteNew("/x.state", {file}).ok());
  StateInfo info;
  return ReadStateFile(&files, "/x.state", spec, &info);
}

TEST(StateFile, WhatVersion1CanSayIsVersion1) {
  const std::string file = FileOf(SmallSpec(), SmallData(3));
  EXPECT_EQ(VersionOf(file), 1u);
  const auto data = Read(file, SmallSpec());
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(*data, SmallData(3));
}

TEST(StateFile, OtherPartsAreVersion2) {
  const std::string file = FileOf(NewerSpec(), NewerData());
  EXPECT_EQ(VersionOf(file), 2u);
  const auto data = Read(file, NewerSpec());
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(*data, NewerData());
  // Version 1 has no such part, so a file that claims both is damaged.
  EXPECT_TRUE(absl::IsDataLoss(Read(WithVersion(file, 1), NewerSpec()).status()));
}

TEST(StateFile, EachPartHasItsDType) {
  StateSpec fp32;
  fp32.fingerprint = "fingerprint";
  fp32.table.Add(0, StatePartKind::kMatrix, {1, 2, 3}, DType::kF16);
  fp32.table.Add(0, StatePartKind::kNormaliser, {1, 2});
  EXPECT_TRUE(absl::IsInvalidArgument(Read(FileOf(NewerSpec(), NewerData()), fp32).status()));
}

TEST(StateFile, ANewerFileIsNamedAndStays) {
  const std::string newer = WithVersion(FileOf(SmallSpec(), SmallData(3)), 3);
  const absl::Status status = Read(newer, SmallSpec()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("x.state is of format 3"));

  FakeFiles files;
  auto store = SessionStore::Open(&files, "/d", SmallSpec());
  ASSERT_TRUE(store.ok()) << store.status();
  SessionRecord record = SmallRecord("a", 1, 3);
  const StateData data = SmallData(3);
  ASSERT_TRUE((*store)->PutRecord(&record, &data, nullptr).ok());
  std::string path;
  for (const std::string& name : files.AllFiles("/d")) {
    if (name.find(".state") != std::string::npos) path = name;
  }
  ASSERT_TRUE(files.Remove(path).ok());
  ASSERT_TRUE(files.WriteNew(path, {newer}).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition((*store)->ReadState(record).status()));
  EXPECT_EQ((*store)->quarantined(), 0);
  EXPECT_TRUE(files.Size(path).ok());
}

}  // namespace
}  // namespace sluice
