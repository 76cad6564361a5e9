#include "engine/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/small_tokenizers.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kBundled = SourcePath("deploy/models/classics-12m");
const TokenizerOptions kBundledOptions = {.vocab_size = 4096, .bos_id = 1, .eos_id = 2};

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::vector<std::unique_ptr<const Tokenizer>> BundledBothWays() {
  std::vector<std::unique_ptr<const Tokenizer>> both;
  both.push_back(*Tokenizer::Load(kBundled, kBundledOptions));
  both.push_back(*Tokenizer::LoadFromSentencePiece(
      ReadAll(std::string(kBundled) + "/tokenizer.model"), kBundledOptions));
  return both;
}

TEST(Tokenizer, Goldens) {
  const json goldens = json::parse(ReadAll(SourcePath("tests/goldens/tokenizer.json")));
  ASSERT_GE(goldens.size(), 400u);
  for (const auto& tokenizer : BundledBothWays()) {
    for (const json& golden : goldens) {
      const std::string text = golden["text"];
      const Ids ids = golden["ids"].get<Ids>();
      EXPECT_EQ(tokenizer->Encode(text, {.add_special_tokens = false}), ids) << text;
      EXPECT_EQ(tokenizer->Decode(ids), golden["decoded"].get<std::string>()) << text;
    }
  }
}

TEST(Tokenizer, BundledModel) {
  for (const auto& tokenizer : BundledBothWays()) {
    EXPECT_EQ(tokenizer->Encode("a"), (Ids{1, 261}));
    EXPECT_EQ(tokenizer->Encode(""), (Ids{1}));
    EXPECT_EQ(tokenizer->Encode(" a", {.continuation = true}), (Ids{261}));
    EXPECT_EQ(tokenizer->Encode("a", {.continuation = true}), (Ids{4022}));
    EXPECT_EQ(tokenizer->Decode({1, 261, 2}), "a");
    EXPECT_EQ(tokenizer->Piece(261), "\u2581a");
    EXPECT_EQ(tokenizer->Piece(13), "<0x0A>");
    EXPECT_EQ(tokenizer->Piece(4096), "");
    EXPECT_TRUE(tokenizer->IsControl(1));
    EXPECT_TRUE(tokenizer->IsControl(2));
    EXPECT_FALSE(tokenizer->IsControl(261));
    EXPECT_EQ(tokenizer->bos_id(), 1);
    EXPECT_EQ(tokenizer->eos_id(), 2);
    EXPECT_EQ(tokenizer->vocab_size(), 4096);
  }
}

// Nobody can write a control token into a prompt of the bundled model.
TEST(Tokenizer, ControlTokensInTextAreText) {
  for (const auto& tokenizer : BundledBothWays()) {
    const Ids ids = tokenizer->Encode("<s></s><unk>");
    for (size_t i = 1; i < ids.size(); ++i) EXPECT_FALSE(tokenizer->IsControl(ids[i]));
    EXPECT_EQ(tokenizer->Decode(ids), "<s></s><unk>");
  }
}

TEST(Tokenizer, InvalidUtf8CountsAsReplacement) {
  for (const auto& tokenizer : BundledBothWays()) {
    EXPECT_EQ(tokenizer->Encode("a\xFF"
                                "b\xE2\x82"),
              tokenizer->Encode("a\uFFFDb\uFFFD"));
  }
}

TEST(Tokenizer, ContinuedTextIsTheSameText) {
  const auto tokenizer = *Tokenizer::Load(kBundled, kBundledOptions);
  const std::string text = "The sluice,  opened \u00e9arly\nand 日本.";
  for (size_t cut = 1; cut < text.size(); ++cut) {
    if (IncompleteSuffix(text.substr(0, cut)) != 0) continue;
    Ids ids = tokenizer->Encode(text.substr(0, cut));
    const Ids more = tokenizer->Encode(text.substr(cut), {.continuation = true});
    ids.insert(ids.end(), more.begin(), more.end());
    EXPECT_EQ(tokenizer->Decode(ids), text);
  }
}

// One pass for both gives what two passes gave.
TEST(Tokenizer, SessionTextIsEncodedBothWays) {
  std::vector<std::unique_ptr<const Tokenizer>> tokenizers = BundledBothWays();
  const TokenizerOptions small = {.vocab_size = kSmallVocabSize, .bos_id = 258};
  json byte_level = SmallByteLevelJson();
  tokenizers.push_back(*Tokenizer::LoadFromJson(byte_level.dump(), small));
  byte_level["pre_tokenizer"]["add_prefix_space"] = true;
  tokenizers.push_back(*Tokenizer::LoadFromJson(byte_level.dump(), small));
  std::vector<std::string> texts = {"",
                                    " ",
                                    "he",
                                    " he",
                                    "  he he",
                                    "<tool>he",
                                    "he<tool> he",
                                    "<|end|>",
                                    "he<|end|>\xFF he",
                                    "\u00e9 he"};
  for (const json& golden : json::parse(ReadAll(SourcePath("tests/goldens/tokenizer.json")))) {
    texts.push_back(golden["text"]);
  }
  for (const auto& tokenizer : tokenizers) {
    for (const std::string& text : texts) {
      for (const bool start : {false, true}) {
        const SessionIds both = tokenizer->EncodeForSession(text, start, !start);
        EXPECT_EQ(both.start, tokenizer->Encode(text, {start, false})) << text;
        EXPECT_EQ(both.continued, tokenizer->Encode(text, {!start, true})) << text;
      }
    }
  }
}

TEST(Tokenizer, LoadPrefersJson) {
  const std::string dir = ::testing::TempDir() + "/sluice_tokenizer_test";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directory(dir);
  EXPECT_EQ(Tokenizer::Load(dir, kBundledOptions).status().code(), absl::StatusCode::kNotFound);
  std::filesystem::copy(std::string(kBundled) + "/tokenizer.model", dir);
  EXPECT_TRUE(Tokenizer::Load(dir, kBundledOptions).ok());
  std::ofstream(dir + "/tokenizer.json") << "{";
  EXPECT_THAT(std::string(Tokenizer::Load(dir, kBundledOptions).status().message()),
              ::testing::StartsWith("tokenizer.json: "));
  std::filesystem::remove(dir + "/tokenizer.json");
  std::filesystem::create_directory(dir + "/tokenizer.json");
  EXPECT_EQ(Tokenizer::Load(dir, kBundledOptions).status().message(), "tokenizer.json: is no file");
  std::filesystem::remove_all(dir);
}

TEST(Tokenizer, ByteLevelGivesEveryTextBack) {
  const auto tokenizer =
      *Tokenizer::LoadFromJson(SmallByteLevelJson().dump(), {.vocab_size = kSmallVocabSize});
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint32_t i = random() % 40; i > 0; --i) {
      char32_t code = random() % (random() % 2 == 0 ? 0x80 : 0x110000);
      if (code >= 0xD800 && code < 0xE000) code = ' ';
      AppendUtf8(code, &text);
    }
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

TEST(Tokenizer, AnyThreadAtAnyTime) {
  const auto tokenizer = *Tokenizer::Load(kBundled, kBundledOptions);
  const std::string text(2000, 'e');
  const Ids expected = tokenizer->Encode(text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k) EXPECT_EQ(tokenizer->Encode(text), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::string RandomText(size_t bytes) {
  std::mt19937 random(4);
  std::string text;
  while (text.size() < bytes) {
    switch (random() % 8) {
      case 0:
        AppendUtf8(0x4E00 + random() % 0x5000, &text);
        break;
      case 1:
        text += " ";
        break;
      default:
        text += static_cast<char>(random() % 0x80);
    }
  }
  return text;
}

// A quadratic step anywhere would take minutes here and end in ctest's timeout; the figures are for
// people.
TEST(Tokenizer, LinearOnAnyText) {
  json added = SmallByteLevelJson();
  for (int i = 0; i < 30; ++i) {
    added["added_tokens"].push_back(
        {{"id", 260 + i}, {"content", std::string(1000 + i, 'a') + "b"}, {"rstrip", true}});
  }
  std::vector<std::pair<const char*, std::unique_ptr<const Tokenizer>>> tokenizers;
  tokenizers.emplace_back("bundled", *Tokenizer::Load(kBundled, kBundledOptions));
  tokenizers.emplace_back(
      "sentencepiece", *Tokenizer::LoadFromSentencePiece(
                           ReadAll(std::string(kBundled) + "/tokenizer.model"), kBundledOptions));
  tokenizers.emplace_back("byte-level",
                          *Tokenizer::LoadFromJson(added.dump(), {.vocab_size = kSmallVocabSize}));
  for (const auto& [name, tokenizer] : tokenizers) {
    for (const std::string& unit :
         {std::string("a"), std::string("e"), std::string(" "), std::string("\n"), std::string("1"),
          std::string("."), std::string("\u2581"), std::string(" a"), std::string("the "),
          std::string("\xFF"), std::string("random")}) {
      std::printf("%-14s %-8s", name, unit == "\n" ? "\\n" : unit == "\xFF" ? "FF" : unit.c_str());
      for (const size_t kib : {1, 16, 256, 1024}) {
        std::string text;
        if (unit == "random") {
          text = RandomText(kib << 10);
        } else {
          while (text.size() < kib << 10) text += unit;
        }
        const auto start = std::chrono::steady_clock::now();
        const Ids ids = tokenizer->Encode(text);
        const std::chrono::duration<double, std::micro> took =
            std::chrono::steady_clock::now() - start;
        EXPECT_FALSE(ids.empty());
        std::printf("  %4zu KiB %6.1f us/KiB", kib, took.count() / static_cast<double>(kib));
      }
      std::printf("\n");
    }
  }
}

TEST(Tokenizer, LoadTimes) {
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(Tokenizer::Load(kBundled, kBundledOptions).ok());
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::printf("bundled model: %.1f ms\n", took.count());

  // The largest that real ones have: 128 Ki pieces, 280 Ki merges.
  json large = SmallByteLevelJson();
  int32_t next = 258;
  large["added_tokens"] = json::array();
  std::vector<std::string> pieces = {"he"};
  std::mt19937 random(8);
  while (next < 131'072) {
    const std::string& left = pieces[random() % pieces.size()];
    const std::string right(1, static_cast<char>('a' + random() % 26));
    const std::string piece = left + right;
    if (piece.size() > 20 || large["model"]["vocab"].contains(piece)) continue;
    large["model"]["vocab"][piece] = next++;
    large["model"]["merges"].push_back({left, right});
    pieces.push_back(piece);
  }
  const std::string bytes = large.dump();
  const auto start_large = std::chrono::steady_clock::now();
  const auto loaded = Tokenizer::LoadFromJson(bytes, {.vocab_size = 131'072});
  const std::chrono::duration<double, std::milli> took_large =
      std::chrono::steady_clock::now() - start_large;
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  std::printf("%zu KiB of tokenizer.json: %.1f ms\n", bytes.size() >> 10, took_large.count());
}

}  // namespace
}  // namespace sluice
