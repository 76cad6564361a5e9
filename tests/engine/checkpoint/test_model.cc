#include "tests/engine/checkpoint/test_model.h"

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace sluice {
namespace {

void Append(uint32_t bits, int bytes, std::string* out) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(bits >> (8 * i)));
}

// Converts a normal fp16 number, or zero, that is exactly representable.
uint32_t ToF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (value == 0) return 0;
  return (bits >> 16 & 0x8000) | ((bits >> 23 & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff);
}

}  // namespace

TempDir::TempDir() {
  std::string path = (std::filesystem::temp_directory_path() / "sluice_test_XXXXXX").string();
  SLUICE_CHECK(mkdtemp(path.data()) != nullptr);
  path_ = path;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TempDir::Write(const std::string& name, const std::string& content) const {
  std::ofstream file(path_ + "/" + name, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  SLUICE_CHECK(file.good());
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes + header + data;
}

std::string SafetensorsBytes(const TestTensors& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
                                   absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                                   data.size(), ",", data.size() + tensor.data.size(), "]}"));
    data += tensor.data;
  }
  return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries, ","), "}"), data);
}

TestTensor CountingTensor(const std::string& dtype, std::vector<int64_t> shape, float first) {
  int64_t elements = 1;
  for (const int64_t extent : shape) elements *= extent;
  TestTensor tensor{dtype, std::move(shape), ""};
  for (int64_t i = 0; i < elements; ++i) {
    const float value = first + static_cast<float>(i % 64) / 64;
    const auto bits = std::bit_cast<uint32_t>(value);
    if (dtype == "F32") Append(bits, 4, &tensor.data);
    if (dtype == "BF16") Append(bits >> 16, 2, &tensor.data);
    if (dtype == "F16") Append(ToF16(value), 2, &tensor.data);
  }
  return tensor;
}

std::string TinyConfig(const std::string& more_fields) {
  return absl::StrCat(
      R"({"model_type": "gla", "hidden_size": 8, "num_hidden_layers": 1, "num_heads": 2,
    "vocab_size": 5, "intermediate_size": 4)",
      more_fields.empty() ? "" : ", ", more_fields, "}");
}

TestTensors TinyTensors(const std::string& dtype) {
  TestTensors tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors[name] =
        CountingTensor(dtype, std::move(shape), static_cast<float>(tensors.size()) / 16);
  };
  const std::string layer = "model.layers.0.";
  add("model.embeddings.weight", {5, 8});
  add(layer + "attn_norm.weight", {8});
  add(layer + "attn.q_proj.weight", {4, 8});
  add(layer + "attn.k_proj.weight", {4, 8});
  add(layer + "attn.v_proj.weight", {8, 8});
  add(layer + "attn.g_proj.weight", {8, 8});
  add(layer + "attn.gk_proj.0.weight", {16, 8});
  add(layer + "attn.gk_proj.1.weight", {4, 16});
  add(layer + "attn.gk_proj.1.bias", {4});
  add(layer + "attn.g_norm_swish_gate.weight", {4});
  add(layer + "attn.o_proj.weight", {8, 8});
  add(layer + "mlp_norm.weight", {8});
  add(layer + "mlp.gate_proj.weight", {4, 8});
  add(layer + "mlp.up_proj.weight", {4, 8});
  add(layer + "mlp.down_proj.weight", {8, 4});
  add("model.norm.weight", {8});
  add("lm_head.weight", {5, 8});
  return tensors;
}

}  // namespace sluice
