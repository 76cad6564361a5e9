// Makes model directories for tests: files in a temporary folder, safetensors out of tensors, a
// tiny valid model.
#ifndef SLUICE_TESTS_ENGINE_CHECKPOINT_TEST_MODEL_H_
#define SLUICE_TESTS_ENGINE_CHECKPOINT_TEST_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace sluice {

// A folder that is gone with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

struct TestTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};
using TestTensors = std::map<std::string, TestTensor>;

// Length prefix, `header`, `data`.
std::string SafetensorsBytes(const std::string& header, const std::string& data);
std::string SafetensorsBytes(const TestTensors& tensors);

// Values 0, 1, 2, ... over 64, plus `first`, as BF16, F16 or F32 (all of them exact).
TestTensor CountingTensor(const std::string& dtype, std::vector<int64_t> shape, float first = 0);

// hidden 8, 1 layer, 2 heads with dk 2 and dv 4, intermediate 4, vocabulary 5.
std::string TinyConfig(const std::string& more_fields = "");
TestTensors TinyTensors(const std::string& dtype = "BF16");

}  // namespace sluice

#endif  // SLUICE_TESTS_ENGINE_CHECKPOINT_TEST_MODEL_H_
