#include "engine/checkpoint/checkpoint.h"

#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/tensor_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/checkpoint/recording_backend.h"
#include "tests/engine/checkpoint/test_model.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kLayer = "model.layers.0.";

std::string Variant(const std::string& name) {
  return SourcePath(absl::StrCat("tests/goldens/variants/", name));
}

// The dtype of a variant's weights, as its name says.
std::string Dtype(const std::string& variant) {
  if (variant == "float32" || variant == "sqrelu_no_decay_mqa") return "fp32";
  return variant == "fp16_sigmoid_conv2" || variant == "gelu_wide_no_gate" ? "fp16" : "bf16";
}

// A model directory, opened and loaded.
class Loaded {
 public:
  Loaded(const std::string& config, const TestTensors& tensors, const LoadOptions& options = {}) {
    dir_.Write("config.json", config);
    dir_.Write("model.safetensors", SafetensorsBytes(tensors));
    Load(dir_.path(), options);
  }
  explicit Loaded(const std::string& dir) { Load(dir, {}); }

  const absl::Status& status() const { return status_; }
  std::string message() const { return std::string(status_.message()); }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const Weights& weights() const { return weights_; }
  const BranchWeights& branch(size_t i) const { return weights_.layers[0].branches[i]; }
  const MixerWeights& mixer() const { return std::get<MixerWeights>(branch(0).units[0]); }
  const MlpWeights& mlp() const { return std::get<MlpWeights>(branch(1).units[0]); }
  const std::string& fingerprint() const { return fingerprint_; }
  const RecordingBackend& backend() const { return backend_; }
  template <typename Handle>
  const std::vector<RecordingBackend::Block>& blocks(const Handle& handle) const {
    return backend_.at(handle).blocks;
  }

 private:
  void Load(const std::string& dir, const LoadOptions& options) {
    auto checkpoint = Checkpoint::Open(dir);
    status_ = checkpoint.status();
    if (!status_.ok()) return;
    checkpoint_ = std::move(*checkpoint);
    auto weights = checkpoint_->Load(&backend_, options, &fingerprint_);
    status_ = weights.status();
    if (status_.ok()) weights_ = std::move(*weights);
  }

  TempDir dir_;
  absl::Status status_;
  RecordingBackend backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Weights weights_;
  std::string fingerprint_;
};

TEST(Checkpoint, EveryVariantOpensAndLoads) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Variant(""))) {
    const Loaded model(entry.path().string());
    ASSERT_TRUE(model.status().ok()) << entry.path() << ": " << model.status();
    const Checkpoint& checkpoint = model.checkpoint();
    const ModelConfig& config = checkpoint.config();
    EXPECT_EQ(checkpoint.name(), entry.path().filename().string());
    const bool own_head = model.weights().lm_head.data != model.weights().embeddings.data;
    EXPECT_EQ(own_head, !config.tied || checkpoint.name() == "tied_but_different") << entry.path();
    EXPECT_EQ(checkpoint.parameters(),
              CountParameters(config) +
                  (own_head && config.tied ? config.spec.vocab * config.spec.hidden : 0))
        << entry.path();
    EXPECT_EQ(checkpoint.weight_dtype(), Dtype(checkpoint.name())) << entry.path();
    if (checkpoint.name() != "mixed_dtypes_silu") {
      EXPECT_EQ(checkpoint.weight_bytes(),
                checkpoint.parameters() * (checkpoint.weight_dtype() == "fp32" ? 4 : 2));
    }
    EXPECT_EQ(model.fingerprint().size(), 32u);
    const auto& m = std::get<MixerSpec>(config.spec.layers[0].branches[0].units[0]);
    const auto& mlp = std::get<MlpSpec>(config.spec.layers[0].branches[1].units[0]);
    ASSERT_EQ(model.weights().layers.size(), config.spec.layers.size());
    for (const LayerWeights& layer : model.weights().layers) {
      const auto& mixer = std::get<MixerWeights>(layer.branches[0].units[0]);
      EXPECT_EQ(mixer.in.n, m.in_dim);
      EXPECT_EQ(mixer.gate_bias.size, m.k.width);
      EXPECT_EQ(mixer.conv_k.size, m.k.width * m.conv.taps);
      EXPECT_EQ(mixer.out_norm.size, m.out_norm.affine ? m.dv : 0);
      EXPECT_EQ(mixer.out.k, m.out_dim());
      EXPECT_EQ(std::get<MlpWeights>(layer.branches[1].units[0]).gate_up.n, 2 * mlp.intermediate);
      EXPECT_EQ(std::get<MlpWeights>(layer.branches[1].units[0]).down.k, mlp.intermediate);
    }
    ++count;
  }
  EXPECT_GE(count, 19);
}

TEST(Checkpoint, TheBundledModel) {
  const std::string dir = SourcePath("deploy/models/classics-12m/");
  const auto start = std::chrono::steady_clock::now();
  const Loaded model(dir);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(model.status().ok()) << model.status();
  EXPECT_EQ(model.checkpoint().name(), "classics-12m");
  EXPECT_THAT(model.checkpoint().config().eos_token_ids, ElementsAre(2));
  std::printf("opened and loaded %.1f MB in %.1f ms\n", model.checkpoint().weight_bytes() / 1e6,
              seconds * 1e3);
}

TEST(Checkpoint, BlocksAreStackedInTheOrderOfTheModel) {
  const TestTensors tensors = TinyTensors();
  const Loaded model(TinyConfig(), tensors);
  ASSERT_TRUE(model.status().ok()) << model.status();
  const auto expect = [&](const auto& handle, RecordingBackend::Load::Kind kind,
                          std::vector<std::string> names) {
    const RecordingBackend::Load& load = model.backend().at(handle);
    EXPECT_EQ(load.kind, kind);
    ASSERT_EQ(load.blocks.size(), names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      EXPECT_EQ(load.blocks[i].dtype, DType::kBF16) << names[i];
      EXPECT_EQ(load.blocks[i].bytes, tensors.at(names[i]).data) << names[i];
    }
  };
  using Kind = RecordingBackend::Load::Kind;
  const MixerWeights& mixer = model.mixer();
  const MlpWeights& mlp = model.mlp();
  expect(model.weights().embeddings, Kind::kLinear, {"model.embeddings.weight"});
  expect(model.branch(0).norm, Kind::kVector, {kLayer + "attn_norm.weight"});
  expect(
      mixer.in, Kind::kLinear,
      {kLayer + "attn.q_proj.weight", kLayer + "attn.k_proj.weight", kLayer + "attn.v_proj.weight",
       kLayer + "attn.gk_proj.0.weight", kLayer + "attn.g_proj.weight"});
  expect(mixer.gate, Kind::kLinear, {kLayer + "attn.gk_proj.1.weight"});
  expect(mixer.gate_bias, Kind::kVector, {kLayer + "attn.gk_proj.1.bias"});
  expect(mixer.out_norm, Kind::kVector, {kLayer + "attn.g_norm_swish_gate.weight"});
  expect(mixer.out, Kind::kLinear, {kLayer + "attn.o_proj.weight"});
  expect(model.branch(1).norm, Kind::kVector, {kLayer + "mlp_norm.weight"});
  expect(mlp.gate_up, Kind::kGateUp,
         {kLayer + "mlp.gate_proj.weight", kLayer + "mlp.up_proj.weight"});
  expect(mlp.down, Kind::kLinear, {kLayer + "mlp.down_proj.weight"});
  expect(model.weights().norm, Kind::kVector, {"model.norm.weight"});
  expect(model.weights().lm_head, Kind::kLinear, {"lm_head.weight"});
  EXPECT_EQ(mixer.conv_q.size + mixer.conv_k.size + mixer.conv_v.size, 0);
  EXPECT_EQ(mixer.in.n, 4 + 4 + 8 + 16 + 8);
}

TEST(Checkpoint, FusedGateAndUpAreTheUpperAndTheLowerRows) {
  TestTensors tensors = TinyTensors();
  const std::string gate = tensors[kLayer + "mlp.gate_proj.weight"].data;
  const std::string up = tensors[kLayer + "mlp.up_proj.weight"].data;
  tensors.erase(kLayer + "mlp.up_proj.weight");
  tensors[kLayer + "mlp.gate_proj.weight"] = {"BF16", {8, 8}, gate + up};
  const Loaded model(TinyConfig(), tensors);
  ASSERT_TRUE(model.status().ok()) << model.status();
  const auto& blocks = model.blocks(model.mlp().gate_up);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].bytes, gate);
  EXPECT_EQ(blocks[1].bytes, up);
  EXPECT_EQ(blocks[1].rows, 4);
}

TEST(Checkpoint, BlocksOfSeveralDtypesBecomeFp32) {
  TestTensors tensors = TinyTensors();
  tensors[kLayer + "attn.gk_proj.0.weight"] = CountingTensor("F32", {16, 8}, 3);
  tensors[kLayer + "attn.v_proj.weight"] = CountingTensor("F16", {8, 8}, 2);
  const Loaded model(TinyConfig(), tensors);
  ASSERT_TRUE(model.status().ok()) << model.status();
  const TestTensors wide = TinyTensors("F32");
  const auto& blocks = model.blocks(model.mixer().in);
  ASSERT_EQ(blocks.size(), 5u);
  for (const auto& block : blocks) EXPECT_EQ(block.dtype, DType::kF32);
  EXPECT_EQ(blocks[0].bytes, wide.at(kLayer + "attn.q_proj.weight").data);
  EXPECT_EQ(blocks[2].bytes, CountingTensor("F32", {8, 8}, 2).data);
  EXPECT_EQ(blocks[3].bytes, CountingTensor("F32", {16, 8}, 3).data);
  EXPECT_EQ(blocks[4].bytes, wide.at(kLayer + "attn.g_proj.weight").data);
  EXPECT_EQ(model.blocks(model.mixer().out)[0].dtype, DType::kBF16);
  EXPECT_EQ(model.checkpoint().weight_dtype(), "bf16");
}

TEST(Checkpoint, Fp16) {
  const Loaded model(TinyConfig(), TinyTensors("F16"));
  ASSERT_TRUE(model.status().ok()) << model.status();
  EXPECT_EQ(model.checkpoint().weight_dtype(), "fp16");
  EXPECT_EQ(model.blocks(model.mlp().down)[0].dtype, DType::kF16);
}

TEST(Checkpoint, OtherNamesAndAbsentParts) {
  TestTensors tensors = TinyTensors();
  const TestTensor norm = tensors[kLayer + "attn.g_norm_swish_gate.weight"];
  tensors.erase(kLayer + "attn.g_norm_swish_gate.weight");
  const Loaded without(TinyConfig("\"elementwise_affine\": false"), tensors);
  ASSERT_TRUE(without.status().ok()) << without.status();
  EXPECT_EQ(without.mixer().out_norm.size, 0);
  EXPECT_THAT(Loaded(TinyConfig(), tensors).message(),
              HasSubstr("attn.g_norm.weight is missing, must have shape [4]"));

  tensors[kLayer + "attn.g_norm.weight"] = norm;
  const Loaded renamed(TinyConfig(), tensors);
  ASSERT_TRUE(renamed.status().ok()) << renamed.status();
  EXPECT_EQ(renamed.blocks(renamed.mixer().out_norm)[0].bytes, norm.data);

  EXPECT_THAT(Loaded(TinyConfig("\"use_output_gate\": false"), tensors).message(),
              HasSubstr("attn.g_proj.weight is not part of the model"));
  tensors.erase(kLayer + "attn.g_proj.weight");
  const Loaded ungated(TinyConfig("\"use_output_gate\": false"), tensors);
  ASSERT_TRUE(ungated.status().ok()) << ungated.status();
  EXPECT_EQ(ungated.blocks(ungated.mixer().in).size(), 4u);
}

TEST(Checkpoint, GroupedHeadsAndShortConvolution) {
  TestTensors tensors = TinyTensors();
  tensors[kLayer + "attn.k_proj.weight"] = CountingTensor("BF16", {2, 8});
  tensors[kLayer + "attn.v_proj.weight"] = CountingTensor("BF16", {4, 8});
  tensors[kLayer + "attn.gk_proj.1.weight"] = CountingTensor("BF16", {2, 16});
  tensors[kLayer + "attn.gk_proj.1.bias"] = CountingTensor("BF16", {2});
  tensors[kLayer + "attn.q_conv1d.weight"] = CountingTensor("BF16", {4, 1, 3});
  tensors[kLayer + "attn.k_conv1d.weight"] = CountingTensor("BF16", {2, 1, 3});
  tensors[kLayer + "attn.v_conv1d.weight"] = CountingTensor("BF16", {4, 1, 3});
  const Loaded model(TinyConfig("\"num_kv_heads\": 1, \"use_short_conv\": true, \"conv_size\": 3"),
                     tensors);
  ASSERT_TRUE(model.status().ok()) << model.status();
  const auto& q = model.blocks(model.mixer().conv_q)[0];
  EXPECT_EQ(q.rows, 4);
  EXPECT_EQ(q.cols, 3);
  EXPECT_EQ(q.bytes, tensors[kLayer + "attn.q_conv1d.weight"].data);
  EXPECT_EQ(model.blocks(model.mixer().conv_k)[0].rows, 2);
  EXPECT_EQ(model.mixer().in.n, 4 + 2 + 4 + 16 + 8);
  EXPECT_THAT(
      Loaded(TinyConfig("\"num_kv_heads\": 1, \"use_short_conv\": true"), tensors).message(),
      HasSubstr("attn.q_conv1d.weight has shape [4, 1, 3], must be [4, 1, 4]"));
}

TEST(Checkpoint, TiedHeads) {
  TestTensors tensors = TinyTensors();
  const std::string tied = TinyConfig("\"tie_word_embeddings\": true");
  const Loaded different(tied, tensors);
  ASSERT_TRUE(different.status().ok()) << different.status();
  EXPECT_NE(different.weights().lm_head.data, different.weights().embeddings.data);

  tensors["lm_head.weight"] = tensors["model.embeddings.weight"];
  const Loaded same(tied, tensors);
  ASSERT_TRUE(same.status().ok()) << same.status();
  EXPECT_EQ(same.weights().lm_head.data, same.weights().embeddings.data);

  tensors.erase("lm_head.weight");
  const Loaded absent(tied, tensors);
  ASSERT_TRUE(absent.status().ok()) << absent.status();
  EXPECT_EQ(absent.weights().lm_head.data, absent.weights().embeddings.data);
  EXPECT_THAT(Loaded(TinyConfig(), tensors).message(),
              HasSubstr("tensor lm_head.weight is missing"));
}

TEST(Checkpoint, NonFiniteWeightsAreNamed) {
  for (const char* name :
       {"model.layers.0.attn.gk_proj.1.bias", "model.embeddings.weight", "lm_head.weight"}) {
    for (const uint16_t bits : {0x7f80, 0xff80, 0x7fc0}) {
      TestTensors tensors = TinyTensors();
      std::memcpy(tensors[name].data.data() + 2 * 3, &bits, 2);
      const Loaded refused(TinyConfig(), tensors);
      EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(refused.message(), absl::StrCat("model.safetensors: tensor ", name,
                                                " holds a NaN or an infinity at element 3"));
      EXPECT_TRUE(Loaded(TinyConfig(), tensors, {.allow_nonfinite = true}).status().ok());
    }
  }
}

TEST(Checkpoint, AFileThatShrinksIsAnErrorThatNamesTheTensor) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  std::filesystem::resize_file(dir.path() + "/model.safetensors", 2000);
  RecordingBackend backend;
  std::string fingerprint;
  const auto weights = (*checkpoint)->Load(&backend, {}, &fingerprint);
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(weights.status().message()),
              HasSubstr("model.safetensors: ends before byte "));
  EXPECT_THAT(std::string(weights.status().message()), HasSubstr("(tensor "));
}

TEST(Checkpoint, FilesOfAnotherKindAreRefused) {
  TempDir dir;
  EXPECT_THAT(std::string(Checkpoint::Open(dir.path()).status().message()),
              HasSubstr("config.json: cannot be opened"));
  EXPECT_FALSE(Checkpoint::Open(dir.path() + "/none").ok());
  EXPECT_FALSE(Checkpoint::Open("").ok());
  dir.Write("config.json", TinyConfig());
  ASSERT_EQ(mkfifo((dir.path() + "/model.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(Checkpoint::Open(dir.path()).status().message(),
            "model.safetensors: is not a regular file");
  std::filesystem::remove(dir.path() + "/model.safetensors");
  std::filesystem::create_directory(dir.path() + "/model.safetensors");
  EXPECT_EQ(Checkpoint::Open(dir.path()).status().message(),
            "model.safetensors: is not a regular file");
}

TEST(Checkpoint, FailuresOfTheBackendArePassedOn) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  RecordingBackend whole;
  std::string fingerprint;
  ASSERT_TRUE((*checkpoint)->Load(&whole, {}, &fingerprint).ok());
  const int loads = static_cast<int>(whole.loads().size());
  for (int n = 0; n < loads; ++n) {
    RecordingBackend backend;
    backend.FailAfter(n);
    const auto weights = (*checkpoint)->Load(&backend, {}, &fingerprint);
    EXPECT_EQ(weights.status().code(), absl::StatusCode::kResourceExhausted) << n;
    EXPECT_EQ(static_cast<int>(backend.loads().size()), n);
  }
}

TEST(Checkpoint, GenerationConfigIsRead) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("generation_config.json", R"({"eos_token_id": [3, 4]})");
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->config().eos_token_ids, ElementsAre(3, 4));
  dir.Write("generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_EQ(Checkpoint::Open(dir.path()).status().message(),
            "generation_config.json: eos_token_id is 5, must be an integer in [0, 4]");
}

TEST(Checkpoint, TheFingerprintTellsModelsApartAndNothingElse) {
  const std::string tiny = Loaded(TinyConfig(), TinyTensors()).fingerprint();
  EXPECT_EQ(Loaded(TinyConfig(), TinyTensors()).fingerprint(), tiny);
  EXPECT_EQ(Loaded(TinyConfig("\"comment\": 1, \"expand_k\": 0.5"), TinyTensors()).fingerprint(),
            tiny);
  EXPECT_NE(Loaded(TinyConfig(), TinyTensors("F16")).fingerprint(), tiny);
  EXPECT_NE(Loaded(TinyConfig("\"norm_eps\": 1e-5"), TinyTensors()).fingerprint(), tiny);
  EXPECT_NE(Loaded(TinyConfig("\"clamp_min\": 0"), TinyTensors()).fingerprint(), tiny);
  TestTensors changed = TinyTensors();
  changed["model.norm.weight"].data[0] ^= 1;
  EXPECT_NE(Loaded(TinyConfig(), changed).fingerprint(), tiny);
  TestTensors swapped = TinyTensors();
  std::swap(swapped[kLayer + "attn.q_proj.weight"], swapped[kLayer + "attn.k_proj.weight"]);
  EXPECT_NE(Loaded(TinyConfig(), swapped).fingerprint(), tiny);
}

TEST(Checkpoint, ShardsDoNotChangeTheFingerprint) {
  const TestTensors all = TinyTensors();
  TestTensors parts[2];
  std::string map;
  for (const auto& [name, tensor] : all) {
    const int part = name.size() % 2;
    parts[part][name] = tensor;
    absl::StrAppend(&map, map.empty() ? "" : ",", "\"", name, "\":\"part", part, ".safetensors\"");
  }
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors.index.json", absl::StrCat("{\"weight_map\":{", map, "}}"));
  dir.Write("part0.safetensors", SafetensorsBytes(parts[0]));
  dir.Write("part1.safetensors", SafetensorsBytes(parts[1]));
  const Loaded sharded(dir.path());
  ASSERT_TRUE(sharded.status().ok()) << sharded.status();
  EXPECT_EQ(sharded.fingerprint(), Loaded(TinyConfig(), all).fingerprint());
}

TEST(Checkpoint, TheNameIsTheDirectorys) {
  TempDir dir;
  dir.Write("config.json", TinyConfig());
  dir.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const std::string base = std::filesystem::path(dir.path()).filename().string();
  for (const char* suffix : {"", "/", "//", "/.", "/./"}) {
    const auto checkpoint = Checkpoint::Open(dir.path() + suffix);
    ASSERT_TRUE(checkpoint.ok()) << suffix;
    EXPECT_EQ((*checkpoint)->name(), base) << suffix;
  }
}

}  // namespace
}  // namespace sluice
