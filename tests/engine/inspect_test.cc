#include "engine/inspect.h"

#include <filesystem>
#include <string>

#include "engine/checkpoint/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/footprint.h"
#include "tests/engine/checkpoint/test_model.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

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

TEST(Inspect, FilesAreCountedWithoutAConfig) {
  TempDir dir;
  WriteModel(dir);
  dir.Write("config.json", R"({"model_type": "llama"})");
  const Inspection model = InspectModel(dir.path(), {});
  EXPECT_THAT(
      model.refusals,
      ElementsAre(StartsWith("config.json: model_type is \"llama\", must be one of \"gla\", ")));
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

// What is measured without reading is what a load hands over, for every layout of a checkpoint.
TEST(Inspect, WeightsAreMeasuredAsTheyAreLoaded) {
  int variants = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SourcePath("tests/goldens/variants"))) {
    const Inspection model = InspectModel(entry.path(), {});
    const auto checkpoint = Checkpoint::Open(entry.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_EQ(model.devices.size(), 2u) << entry.path();
    for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda}) {
      WeightSizer sizer(kind);
      std::string fingerprint;
      ASSERT_TRUE((*checkpoint)->Load(&sizer, {}, &fingerprint).ok());
      EXPECT_EQ(model.devices[static_cast<int>(kind)].weight_bytes, sizer.bytes()) << entry.path();
    }
    EXPECT_EQ(model.files->parameters, (*checkpoint)->parameters());
    EXPECT_EQ(model.layout->fused_gate_up, entry.path().filename() == "fused_mlp");
    EXPECT_EQ(model.files->count > 1, entry.path().filename() == "sharded");
    ++variants;
  }
  EXPECT_GE(variants, 18);
}

}  // namespace
}  // namespace sluice
