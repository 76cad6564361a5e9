#include "engine/state/state_blob.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <limits>

#include "tests/engine/state/small_state.h"

namespace sluice {
namespace {

StateKeys Keys(const std::string& text) {
  const absl::StatusOr<StateKeys> keys = ParseStateKeys(text);
  EXPECT_TRUE(keys.ok()) << keys.status();
  return *keys;
}

const std::string kKeyA(64, 'a');
const std::string kKeyB(64, 'b');

std::string Export(const StateKeys& keys, const std::string& tenant, const StateInfo& info,
                   const StateData& data, size_t piece = 7) {
  BlobWriter writer(keys, tenant, SmallSpec(), info, std::make_shared<const StateData>(data));
  std::string blob;
  for (std::string next = writer.Next(piece); !next.empty(); next = writer.Next(piece)) {
    EXPECT_LE(next.size(), piece);
    blob += next;
  }
  return blob;
}

absl::StatusOr<BlobState> Import(const StateKeys& keys, const std::string& tenant,
                                 const std::string& blob, size_t piece = 11,
                                 const StateSpec& spec = SmallSpec()) {
  BlobReader reader(&keys, tenant, &spec);
  for (size_t at = 0; at < blob.size(); at += piece) {
    const absl::Status status = reader.Add(absl::string_view(blob).substr(at, piece));
    if (!status.ok()) return status;
  }
  return reader.Finish();
}

TEST(StateBlobTest, ComesBackWhateverThePieces) {
  const StateKeys keys = Keys(kKeyA);
  const std::string blob = Export(keys, "t", SmallInfo(3), SmallData(3));
  for (const size_t piece : {1, 2, 31, 32, 33, 1000000}) {
    EXPECT_EQ(Export(keys, "t", SmallInfo(3), SmallData(3), piece), blob);
    const auto state = Import(keys, "t", blob, piece);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(state->data, SmallData(3));
    EXPECT_EQ(state->info.position, 103);
    EXPECT_EQ(state->info.last_token, 3);
    EXPECT_EQ(state->info.undecoded, "\xE2\x82");
    EXPECT_EQ(state->info.numerics_id, "numerics");
  }
}

TEST(StateBlobTest, AnEmptySessionTravelsToo) {
  const StateKeys keys = Keys(kKeyA);
  const auto state = Import(keys, "", Export(keys, "", StateInfo(), {}));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->info.position, 0);
  EXPECT_TRUE(state->data.empty());
}

TEST(StateBlobTest, EveryFlippedBitOfEveryByteIsRefused) {
  const StateKeys keys = Keys(kKeyA);
  const std::string blob = Export(keys, "t", SmallInfo(3), SmallData(3));
  int tried = 0;
  for (size_t i = 0; i < blob.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit, ++tried) {
      std::string bad = blob;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const auto state = Import(keys, "t", bad);
      EXPECT_FALSE(state.ok()) << "byte " << i << " bit " << bit;
      EXPECT_TRUE(absl::IsDataLoss(state.status()) || absl::IsPermissionDenied(state.status()) ||
                  absl::IsFailedPrecondition(state.status()))
          << state.status();
    }
  }
  std::printf("0 of %d forgeries accepted\n", tried);
}

TEST(StateBlobTest, EveryLengthButTheWholeIsRefused) {
  const StateKeys keys = Keys(kKeyA);
  const std::string blob = Export(keys, "t", SmallInfo(3), SmallData(3));
  for (size_t size = 0; size < blob.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(Import(keys, "t", blob.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(Import(keys, "t", blob + "x").status()));
  EXPECT_TRUE(absl::IsDataLoss(Import(keys, "t", blob + blob, 1000000).status()));
}

TEST(StateBlobTest, KeyTenantModelAndShapeMustBeRight) {
  const StateKeys keys = Keys(kKeyA);
  const std::string blob = Export(keys, "t", SmallInfo(3), SmallData(3));
  EXPECT_TRUE(absl::IsPermissionDenied(Import(Keys(kKeyB), "t", blob).status()));
  EXPECT_TRUE(absl::IsPermissionDenied(Import(keys, "u", blob).status()));
  EXPECT_TRUE(Import(Keys(kKeyB + "\n" + kKeyA), "t", blob).ok()) << "an older key verifies";
  StateSpec other = SmallSpec();
  other.fingerprint = "another";
  EXPECT_TRUE(absl::IsFailedPrecondition(Import(keys, "t", blob, 11, other).status()));
  GlaShape wider = SmallShape();
  wider.dv = 4;
  other.fingerprint = SmallSpec().fingerprint;
  other.table = MakeStateTable(wider.Spec());
  EXPECT_TRUE(absl::IsInvalidArgument(Import(keys, "t", blob, 11, other).status()));
}

TEST(StateBlobTest, NumbersMustBeFinite) {
  const StateKeys keys = Keys(kKeyA);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    StateData data = SmallData(3);
    std::memcpy(data.data() + 5 * sizeof(float), &bad, sizeof(bad));
    const auto state = Import(keys, "t", Export(keys, "t", SmallInfo(3), data));
    EXPECT_TRUE(absl::IsInvalidArgument(state.status())) << state.status();
  }
}

TEST(StateKeysTest, RulesAreSaid) {
  EXPECT_EQ(Keys("# a comment\n\n  " + kKeyA + "  \n" + kKeyB).size(), 2u);
  EXPECT_NE(Keys(kKeyA)[0].id, Keys(kKeyB)[0].id);
  const auto says = [](const std::string& text) {
    return std::string(ParseStateKeys(text).status().message());
  };
  EXPECT_EQ(says(""), "holds no key");
  EXPECT_EQ(says("\n" + std::string(62, 'a')), "line 2: a key of 31 bytes, must be at least 32");
  EXPECT_EQ(says("secret"), "line 1: not a key in hex");
  EXPECT_EQ(says(kKeyA + "a"), "line 1: not a key in hex");
}

TEST(StateKeysTest, AFileThatOthersReadIsRefused) {
  const std::string path = testing::TempDir() + "/state_keys";
  std::ofstream(path) << kKeyA << "\n";
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(LoadStateKeys(path).status()));
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_TRUE(LoadStateKeys(path).ok());
  EXPECT_TRUE(absl::IsNotFound(LoadStateKeys(path + "-not").status()));
  ASSERT_EQ(remove(path.c_str()), 0);
}

TEST(MacTest, IsHmacSha256) {
  // RFC 4231, test case 2.
  Mac mac("Jefe");
  mac.Add("what do ya want ");
  mac.Add("for nothing?");
  std::string hex;
  for (unsigned char c : mac.Finish()) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", c);
    hex += two;
  }
  EXPECT_EQ(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

}  // namespace
}  // namespace sluice
