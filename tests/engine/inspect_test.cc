#include "engine/inspect.h"

#include <filesystem>
#include <string>

#include "engine/checkpoint/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/footprint.h"
#include "tests/engine/checkpoint/test_model.h"
#include "tests/fakes/spec_models.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

// Five pieces, as the tiny model's vocabulary.
constexpr char kTokenizer[] =
    R"({"model": {"type": "BPE", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4},
        "merges": []}, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"}})";

void WriteModel(const TempDir& dir) {
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  dir.Write("tokenizer.json", kTokenizer);
}

TEST(Inspect, AModelThatIsServed) {
  TempDir dir;
  WriteModel(dir);
  const Inspection model = InspectModel(dir.path(), {.check_values = true});
  EXPECT_THAT(model.refusals, IsEmpty());
  ASSERT_TRUE(model.config && model.files && model.layout && model.tokenizer);
  EXPECT_EQ(std::get<MixerSpec>(model.config->spec.layers[0].branches[0].units[0]).dk, 2);
  EXPECT_EQ(model.files->count, 1);
  EXPECT_EQ(model.files->bytes_by_dtype.size(), 1u);
  EXPECT_EQ(model.files->bytes_by_dtype.at("BF16"), 2 * model.files->parameters);
  EXPECT_EQ(model.tokenizer->kind, "tokenizer.json, BPE");
  EXPECT_EQ(model.tokenizer->pieces, 5);
  EXPECT_EQ(model.state_bytes, 2 * 2 * 4 * 4);
  ASSERT_EQ(model.devices.size(), 2u);
  EXPECT_EQ(model.devices[0].refusal, "");
  EXPECT_THAT(model.devices[1].refusal, HasSubstr("dk (keys of a head) is 2"));
  EXPECT_TRUE(model.values_checked);
  EXPECT_EQ(model.fingerprint.size(), 32u);
}

TEST(Inspect, EachLoaderSaysWhatItFinds) {
  TempDir dir;
  WriteModel(dir);
  dir.Write("config.json", TinyConfig(R"("use_gv": true)"));
  dir.Write("model.safetensors", "short");
  dir.Write("tokenizer.json", "{}");
  const Inspection model = InspectModel(dir.path(), {});
  EXPECT_THAT(model.refusals,
              ElementsAre(StartsWith("config.json: use_gv"), StartsWith("model.safetensors: "),
                          StartsWith("tokenizer.json: ")));
  EXPECT_FALSE(model.config || model.files || model.layout || model.tokenizer);
  EXPECT_THAT(model.devices, IsEmpty());
}

// The parts of all layers make up the whole, for every kind of model.
TEST(Inspect, LayersOfEachKind) {
  const Inspection transnormer = InspectModel(SourcePath("tests/goldens/transnormer/base"), {});
  ASSERT_EQ(transnormer.layers.size(), 2u);
  EXPECT_EQ(transnormer.layers[0].mixer, "a constant decay per head, LRPE positions");
  EXPECT_EQ(transnormer.layers[0].state_bytes, 4 * 32 * 16 * 4);
  EXPECT_EQ(transnormer.layers[1].mixer, "a constant decay per head");
  // 4 heads of 16 x 16, qkvu and out of 64 x 64 each, a GLU of 24.
  EXPECT_EQ(transnormer.layers[1].multiply_adds, 5 * 64 * 64 + 3 * 4 * 16 * 16 + 3 * 24 * 64);
  const Inspection kda = InspectModel(SourcePath("tests/goldens/kda/base"), {});
  ASSERT_EQ(kda.layers.size(), 1u);
  EXPECT_EQ(kda.layers[0].mixer, "the delta rule, a decay per key and token, short convolutions");
  EXPECT_EQ(kda.layers[0].state_bytes, 4 * (2 * 16 * 16 + 3 * 3 * 32));
  // q, k, v, beta and the first matrices of both gates, then those gates' second ones, out, four
  // passes over 2 heads of 16 x 16, and a SwiGLU of 8.
  EXPECT_EQ(kda.layers[0].multiply_adds,
            (3 * 32 + 2 + 2 * 16) * 64 + 2 * 16 * 32 + 32 * 64 + 4 * 2 * 16 * 16 + 3 * 8 * 64);
  for (const char* dir : kSpecModels) {
    SCOPED_TRACE(dir);
    const Inspection model = InspectModel(SourcePath(dir), {});
    int64_t layers = 0, bytes = 0, token_bytes = 0;
    for (const Inspection::Layers& kind : model.layers) {
      layers += kind.count;
      bytes += kind.count * kind.state_bytes;
      token_bytes += kind.count * kind.token_bytes;
      EXPECT_GT(kind.multiply_adds, 0);
    }
    EXPECT_EQ(layers, static_cast<int64_t>(model.config->spec.layers.size()));
    EXPECT_EQ(bytes, model.state_bytes);
    EXPECT_EQ(token_bytes, model.token_bytes);
  }
}

// Not the first alone, as at a start.
TEST(Inspect, EveryFieldAndTensorThatIsWrongIsNamed) {
  TempDir dir;
  WriteModel(dir);
  dir.Write("config.json", TinyConfig(R"("use_gv": true, "norm_eps": 0, "attn": [1])"));
  EXPECT_THAT(InspectModel(dir.path(), {}).refusals,
              UnorderedElementsAre(HasSubstr(" use_gv is "), HasSubstr(" norm_eps is "),
                                   HasSubstr(" attn is ")));
  WriteModel(dir);
  TestTensors tensors = TinyTensors();
  tensors.erase("model.norm.weight");
  tensors["model.norm.bias"] = CountingTensor("BF16", {8});
  dir.Write("model.safetensors", SafetensorsBytes(tensors));
  EXPECT_THAT(InspectModel(dir.path(), {}).refusals,
              ElementsAre(HasSubstr("model.norm.weight is missing"),
                          HasSubstr("model.norm.bias is not part of the model")));
  // Forty layers that the file does not have.
  dir.Write("config.json", TinyConfig(R"("num_hidden_layers": 40)"));
  const std::vector<std::string> refusals = InspectModel(dir.path(), {}).refusals;
  EXPECT_EQ(refusals.size(), 13u);
  EXPECT_THAT(refusals.back(), HasSubstr("more tensors like these"));
}

TEST(Inspect, APickleIsNotReadAndItsConversionIsSaid) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("tokenizer.json", kTokenizer);
  dir.Write("pytorch_model.bin", "pickle");
  const Inspection model = InspectModel(dir.path(), {});
  EXPECT_THAT(model.refusals,
              ElementsAre(testing::AllOf(StartsWith("model.safetensors: is missing"),
                                         HasSubstr("pytorch_model.bin is a pickle"),
                                         HasSubstr("save_file"))));
}

TEST(Inspect, FilesAreCountedWithoutAConfig) {
  TempDir dir;
  WriteModel(dir);
  dir.Write("config.json", R"({"model_type": "gpt2"})");
  const Inspection model = InspectModel(dir.path(), {});
  EXPECT_THAT(
      model.refusals,
      ElementsAre(StartsWith("config.json: model_type is \"gpt2\", must be one of \"gla\", ")));
  EXPECT_TRUE(model.files && model.tokenizer);
  EXPECT_FALSE(model.layout);
}

TEST(Inspect, ValuesAreReadOnlyWhereAsked) {
  TempDir dir;
  WriteModel(dir);
  TestTensors tensors = TinyTensors();
  tensors.at("model.norm.weight").data.replace(0, 2, "\xc0\x7f");
  dir.Write("model.safetensors", SafetensorsBytes(tensors));
  EXPECT_THAT(InspectModel(dir.path(), {}).refusals, IsEmpty());
  const Inspection checked = InspectModel(dir.path(), {.check_values = true});
  EXPECT_THAT(checked.refusals,
              ElementsAre(HasSubstr("model.norm.weight holds a NaN or an infinity at element 0")));
  EXPECT_FALSE(checked.values_checked);
  EXPECT_EQ(checked.fingerprint, "");
}

TEST(Inspect, NoDirectory) {
  for (const char* dir : {"/no/such/directory", ""}) {
    EXPECT_THAT(InspectModel(dir, {}).refusals,
                ElementsAre(StartsWith("config.json: "), StartsWith("model.safetensors: "),
                            HasSubstr("no tokenizer")))
        << dir;
  }
}

// Sizes that are measured without reading are those that a load hands over, for every layout of a
// checkpoint.
TEST(Inspect, WeightsAreMeasuredAsTheyAreLoaded) {
  int variants = 0;
  std::vector<std::filesystem::path> dirs(std::begin(kSpecModels), std::end(kSpecModels));
  for (std::filesystem::path& dir : dirs) dir = SourcePath(dir.string());
  for (const auto& entry :
       std::filesystem::directory_iterator(SourcePath("tests/goldens/variants"))) {
    dirs.push_back(entry.path());
  }
  for (const std::filesystem::path& dir : dirs) {
    const Inspection model = InspectModel(dir, {});
    const auto checkpoint = Checkpoint::Open(dir);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_EQ(model.devices.size(), 2u) << dir;
    for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda}) {
      WeightSizer sizer(kind);
      std::string fingerprint;
      ASSERT_TRUE((*checkpoint)->Load(&sizer, {}, &fingerprint).ok());
      EXPECT_EQ(model.devices[static_cast<int>(kind)].weight_bytes, sizer.bytes()) << dir;
    }
    // What is not served is in the files all the same, and a note says so.
    const bool whole = model.config->notes.empty();
    EXPECT_EQ(model.files->parameters == (*checkpoint)->parameters(), whole) << dir;
    EXPECT_EQ(model.config->notes, (*checkpoint)->config().notes);
    EXPECT_EQ(model.layout->fused_gate_up, dir.filename() == "fused_mlp");
    EXPECT_EQ(model.files->count > 1, dir.filename() == "sharded");
    ++variants;
  }
  EXPECT_GE(variants, 24);
}

}  // namespace
}  // namespace sluice
