// Broken and hostile model.safetensors files beside a valid config: each is refused with one line,
// and no single allocation is larger than the file (twice that for a file that is one string: the
// JSON lexer's buffer doubles).

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/state_table.h"
#include "tests/engine/checkpoint/test_model.h"

namespace {

std::atomic<size_t> largest_allocation{0};

void* Allocate(size_t bytes) {
  size_t seen = largest_allocation.load();
  while (bytes > seen && !largest_allocation.compare_exchange_weak(seen, bytes)) {
  }
  void* memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace sluice {
namespace {

using testing::HasSubstr;

constexpr size_t kAllocationFloor = 16 << 10;

struct HostileFile {
  const char* what;
  std::string bytes;
  const char* message;
  size_t allocation_factor = 1;
};

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  int64_t begin, int64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":[", begin, ",", end, "]}");
}

std::string OneTensor(const std::string& dtype, const std::string& shape, int64_t begin,
                      int64_t end, size_t data_bytes) {
  return SafetensorsBytes(absl::StrCat("{", Entry("t", dtype, shape, begin, end), "}"),
                          std::string(data_bytes, 0));
}

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + rest;
}

// The valid model with one change.
std::string Changed(const std::function<void(TestTensors*)>& change) {
  TestTensors tensors = TinyTensors();
  change(&tensors);
  return SafetensorsBytes(tensors);
}

std::string ManyTensors(int64_t count) {
  std::string header = "{";
  for (int64_t i = 0; i < count; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", Entry(absl::StrCat("t", i), "U8", "[0]", 0, 0));
  }
  return SafetensorsBytes(header + "}", "");
}

std::vector<HostileFile> HostileFiles() {
  const std::string valid = SafetensorsBytes(TinyTensors());
  const std::string q = "model.layers.0.attn.q_proj.weight";
  std::vector<HostileFile> files = {
      {"empty", "", "has 0 bytes, too short"},
      {"seven bytes", "1234567", "has 7 bytes, too short"},
      {"header of 0 bytes", WithLength(0, "{}"), "header has 0 bytes, must be in [2, 100000000]"},
      {"header of 1 byte", WithLength(1, "{"), "header has 1 bytes"},
      {"header beyond the file", WithLength(1000, "{}"),
       "header has 1000 bytes, but the file ends after 2"},
      {"header over 100 MB", WithLength(100'000'001, "{}"),
       "header has 100000001 bytes, must be in"},
      {"header of 2^64 - 1 bytes", WithLength(~uint64_t{0}, "{}"),
       "header has 18446744073709551615 bytes"},
      {"header of 2^63 bytes", WithLength(uint64_t{1} << 63, "{}"),
       "header has 9223372036854775808 bytes"},
      {"header length cuts the header", WithLength(20, valid.substr(8)),
       "header is not valid JSON"},
      {"bad UTF-8", SafetensorsBytes("{\"\xc3\x28\":{}}", ""), "header is not valid JSON in UTF-8"},
      {"lone surrogate", SafetensorsBytes("{\"\\udc00\":{}}", ""),
       "header is not valid JSON in UTF-8"},
      {"bad JSON", SafetensorsBytes("{\"t\":}", ""), "header is not valid JSON in UTF-8 at byte 6"},
      {"NUL in the header", SafetensorsBytes(std::string("{}\0\0", 4), ""),
       "header holds a NUL byte"},
      {"byte order mark", SafetensorsBytes("\xef\xbb\xbf{}", ""), "header must begin with '{'"},
      {"a list", SafetensorsBytes("[]", ""), "header must begin with '{'"},
      {"duplicate names",
       SafetensorsBytes(absl::StrCat("{", Entry("t", "U8", "[1]", 0, 1), ",",
                                     Entry("t", "U8", "[1]", 1, 2), "}"),
                        "ab"),
       "tensor t appears twice"},
      {"overlap",
       SafetensorsBytes(absl::StrCat("{", Entry("a", "U8", "[2]", 0, 2), ",",
                                     Entry("b", "U8", "[2]", 1, 3), "}"),
                        "abc"),
       "tensor b begins at data offset 1, must follow the one before at 2: they overlap"},
      {"hole",
       SafetensorsBytes(absl::StrCat("{", Entry("a", "U8", "[1]", 0, 1), ",",
                                     Entry("b", "U8", "[1]", 2, 3), "}"),
                        "abc"),
       "tensor b begins at data offset 2, must follow the one before at 1: there is a hole"},
      {"reversed offsets", OneTensor("U8", "[1]", 1, 0, 1),
       "tensor t has data_offsets [1, 0] in the wrong order"},
      {"offsets beyond the end", OneTensor("F32", "[1024]", 0, 4096, 4),
       "beyond the 4 bytes of data in the file"},
      {"offsets of 2^62", OneTensor("U8", "[4611686018427387904]", 0, int64_t{1} << 62, 4),
       "beyond the 4 bytes"},
      {"product of the shape overflows", OneTensor("F32", "[4294967296,4294967296]", 0, 4, 4),
       "whose size overflows"},
      {"product of the shape wraps to 0", OneTensor("BF16", "[9223372036854775807,2]", 0, 0, 0),
       "whose size overflows"},
      {"shape larger than the range", OneTensor("F32", "[1000000000]", 0, 4, 4),
       "takes 4000000000 bytes"},
      {"unknown dtype", OneTensor("F128", "[1]", 0, 4, 4),
       "tensor t has the unknown dtype \"F128\""},
      {"negative extent", OneTensor("F32", "[-1]", 0, 4, 4),
       "tensor t has a negative number in its shape"},
      {"trailing byte", valid + "x", "model.safetensors: has 1 bytes after the last tensor"},
      {"one byte short", valid.substr(0, valid.size() - 1), "beyond the"},
      {"cut in the middle", valid.substr(0, valid.size() / 2), "header has "},
      {"cut in the data", valid.substr(0, valid.size() * 3 / 4), "beyond the"},
      {"deep lists", SafetensorsBytes(absl::StrCat("{\"t\":", std::string(1'000'000, '[')), ""),
       "tensor t is a list, must be an object"},
      {"deep objects",
       SafetensorsBytes(
           [] {
             std::string s;
             for (int i = 0; i < 100000; ++i) s += "{\"a\":";
             return s;
           }(),
           ""),
       "tensor a has the unknown field \"a\""},
      {"10^6 tensors that the model has not", ManyTensors(1'000'000),
       "tensor model.embeddings.weight is missing, must have shape [5, 8]"},
      {"10^6 + 1 tensors", ManyTensors(1'000'001), "has more than 1000000 tensors"},
      {"missing tensor", Changed([&](TestTensors* t) { t->erase(q); }),
       "model.safetensors: tensor model.layers.0.attn.q_proj.weight is missing, must have shape "
       "[4, 8]"},
      {"wrong shape", Changed([&](TestTensors* t) {
         (*t)[q] = CountingTensor("BF16", {3, 4});
       }),
       "model.safetensors: tensor model.layers.0.attn.q_proj.weight has shape [3, 4], must be [4, "
       "8]"},
      {"transposed", Changed([&](TestTensors* t) {
         (*t)[q] = CountingTensor("BF16", {8, 4});
       }),
       "q_proj.weight has shape [8, 4], must be [4, 8]"},
      {"wrong rank", Changed([&](TestTensors* t) {
         (*t)[q] = CountingTensor("BF16", {4, 8, 1});
       }),
       "q_proj.weight has shape [4, 8, 1], must be [4, 8]"},
      {"scalar", Changed([&](TestTensors* t) { (*t)[q] = CountingTensor("BF16", {}); }),
       "q_proj.weight has shape [], must be [4, 8]"},
      {"fp64", Changed([&](TestTensors* t) {
         (*t)[q] = {"F64", {4, 8}, std::string(4 * 8 * 8, '\0')};
       }),
       "q_proj.weight has dtype F64, must be BF16, F16 or F32"},
      {"int8", Changed([&](TestTensors* t) {
         (*t)[q] = {"I8", {4, 8}, std::string(4 * 8, '\0')};
       }),
       "q_proj.weight has dtype I8, must be BF16, F16 or F32"},
      {"a bias that the model has not", Changed([&](TestTensors* t) {
         (*t)["model.layers.0.attn.q_proj.bias"] = CountingTensor("BF16", {4});
       }),
       "tensor model.layers.0.attn.q_proj.bias is not part of the model that config.json "
       "describes"},
      {"a second layer", Changed([&](TestTensors* t) {
         (*t)["model.layers.1.attn_norm.weight"] = CountingTensor("BF16", {8});
       }),
       "tensor model.layers.1.attn_norm.weight is not part of the model"},
      {"both names of the head norm", Changed([&](TestTensors* t) {
         (*t)["model.layers.0.attn.g_norm.weight"] = CountingTensor("BF16", {4});
       }),
       "tensor model.layers.0.attn.g_norm.weight is not part of the model"},
      {"fused gate and up of odd size", Changed([&](TestTensors* t) {
         t->erase("model.layers.0.mlp.up_proj.weight");
         (*t)["model.layers.0.mlp.gate_proj.weight"] = CountingTensor("BF16", {7, 8});
       }),
       "mlp.gate_proj.weight has shape [7, 8], must be [4, 8]"},
      {"unprintable name", SafetensorsBytes("{\"\\u001b[2J\\n\":{\"dtype\":\"X\"}}", ""),
       "tensor \\x1b[2J\\n has the unknown"},
      {"long name", SafetensorsBytes(absl::StrCat("{\"", std::string(1 << 20, 'n'), "\":1}"), ""),
       "nnn... is a number", 2},
  };
  return files;
}

TEST(HostileFiles, TheUnchangedModelOpens) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
}

TEST(HostileFiles, AreRefusedWithOneLineAndNoLargeAllocation) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  const std::vector<HostileFile> files = HostileFiles();
  for (const HostileFile& file : files) {
    dir.Write("model.safetensors", file.bytes);
    largest_allocation = 0;
    const auto checkpoint = Checkpoint::Open(dir.path());
    const size_t largest = largest_allocation;
    ASSERT_FALSE(checkpoint.ok()) << file.what;
    const std::string message(checkpoint.status().message());
    EXPECT_THAT(message, HasSubstr(file.message)) << file.what;
    EXPECT_EQ(message.rfind("model.safetensors: ", 0), 0u) << file.what << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << file.what;
    EXPECT_LT(message.size(), 500u) << file.what;
    EXPECT_LE(largest, std::max(file.allocation_factor * file.bytes.size() + 64, kAllocationFloor))
        << file.what;
  }
  RecordProperty("files", static_cast<int>(files.size()));
  EXPECT_GE(files.size(), 24u);
}

TEST(HostileFiles, EveryCutIsRefused) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  const std::string valid = SafetensorsBytes(TinyTensors());
  for (size_t length = 0; length < valid.size(); length += 13) {
    dir.Write("model.safetensors", valid.substr(0, length));
    EXPECT_FALSE(Checkpoint::Open(dir.path()).ok()) << length;
  }
}

TEST(HostileFiles, ABrokenConfigIsRefusedBeforeTheWeightsAreRead) {
  TempDir dir;
  dir.Write("config.json", TinyConfig("\"num_kv_heads\": 0"));
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_EQ(checkpoint.status().message(),
            "config.json: num_kv_heads is 0, must be an integer in [1, 1024]");
}

TEST(HostileFiles, AConfigThatPromisesMuchAllocatesNothing) {
  TempDir dir;
  dir.Write(
      "config.json",
      R"({"model_type": "gla", "hidden_size": 8192, "num_hidden_layers": 1024, "num_heads": 32,
      "vocab_size": 1000000})");
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  largest_allocation = 0;
  const auto checkpoint = Checkpoint::Open(dir.path());
  // The lists of its layers and of its state's parts, of which a config can have no more than this.
  EXPECT_LE(largest_allocation, 1024 * std::max(sizeof(LayerSpec), sizeof(StatePart)));
  EXPECT_THAT(std::string(checkpoint.status().message()),
              HasSubstr("model.embeddings.weight has shape [5, 8], must be [1000000, 8192]"));
}

TEST(HostileFiles, ALargeConfigIsNotRead) {
  TempDir dir;
  dir.Write("config.json", std::string((1 << 20) + 1, ' '));
  EXPECT_EQ(Checkpoint::Open(dir.path()).status().message(),
            "config.json: has 1048577 bytes, must be at most 1048576");
}

}  // namespace
}  // namespace sluice
