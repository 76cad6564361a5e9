#include "engine/checkpoint/config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/tensor_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

absl::StatusOr<ModelConfig> Parse(const std::string& fields) {
  return ParseConfig(
      absl::StrCat("{\"model_type\": \"gla\"", fields.empty() ? "" : ", ", fields, "}"),
      "config.json");
}

const MixerSpec& MixerOf(const ModelConfig& config) {
  return std::get<MixerSpec>(config.spec.layers[0].branches[0].units[0]);
}

int64_t IntermediateOf(const ModelConfig& config) {
  return std::get<MlpSpec>(config.spec.layers[0].branches[1].units[0]).intermediate;
}

TEST(Config, DefaultsAreThoseOfGlaConfig) {
  const auto config = Parse("");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_STREQ(config->model_type(), "gla");
  EXPECT_EQ(config->spec.vocab, 32000);
  EXPECT_EQ(config->spec.layers.size(), 24u);
  EXPECT_EQ(config->spec.hidden, 2048);
  EXPECT_EQ(config->spec.final_norm.eps, 1e-6f);
  EXPECT_EQ(IntermediateOf(*config), 5632);
  const MixerSpec& m = MixerOf(*config);
  EXPECT_EQ(m.q_heads, 4);
  EXPECT_EQ(m.state_heads, 4);
  EXPECT_EQ(m.dk, 256);
  EXPECT_EQ(m.dv, 512);
  EXPECT_EQ(m.gate_in.width, 16);
  EXPECT_EQ(m.conv.taps, 0);
  EXPECT_EQ(m.q_map, FeatureMap::kIdentity);
  EXPECT_TRUE(m.gated());
  EXPECT_FALSE(m.clamp_log_gate);
  EXPECT_EQ(m.out_norm.eps, 1e-6f);
  EXPECT_FALSE(config->tied);
  EXPECT_TRUE(m.out_norm.affine);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config->max_position_embeddings, 2048);
}

TEST(Config, ParameterCountsOfPublicShapes) {
  const auto config = Parse(R"("hidden_size": 2048, "num_heads": 4)");
  ASSERT_TRUE(config.ok());
  EXPECT_NEAR(static_cast<double>(CountParameters(*config)), 1.366e9, 1e6);
  const auto large = Parse(R"("hidden_size": 2560, "num_heads": 5, "num_hidden_layers": 32)");
  ASSERT_TRUE(large.ok());
  EXPECT_NEAR(static_cast<double>(CountParameters(*large)), 2.704e9, 1e6);
}

TEST(Config, DefaultIntermediateSize) {
  const struct {
    const char* fields;
    int64_t expected;
  } kCases[] = {
      {R"("hidden_size": 1024)", 2816},
      {R"("hidden_size": 2048, "intermediate_size": null)", 5632},
      {R"("hidden_size": 2560)", 6912},
      {R"("hidden_size": 4096, "hidden_ratio": null)", 11008},
      {R"("hidden_size": 1024, "hidden_ratio": 2)", 1536},
      {R"("hidden_size": 4096, "intermediate_size": 14336)", 14336},
  };
  for (const auto& c : kCases) {
    const auto config = Parse(c.fields);
    ASSERT_TRUE(config.ok()) << c.fields << ": " << config.status();
    EXPECT_EQ(IntermediateOf(*config), c.expected) << c.fields;
  }
}

TEST(Config, EveryFieldCounts) {
  const auto config = Parse(R"("hidden_size": 64, "num_hidden_layers": 3, "num_heads": 4,
      "num_kv_heads": 2, "expand_k": 1, "expand_v": 2.0, "intermediate_size": 200,
      "vocab_size": 97, "use_short_conv": true, "conv_size": 3, "use_output_gate": false,
      "clamp_min": -0.05, "feature_map": "sqrelu", "elementwise_affine": false, "norm_eps": 1e-05,
      "tie_word_embeddings": true, "hidden_act": "silu", "attn_mode": "fused_chunk",
      "bos_token_id": null, "eos_token_id": [5, 6], "attn": null, "use_gk": true,
      "use_gv": false, "attnres_block_size": null, "max_position_embeddings": 8192)");
  ASSERT_TRUE(config.ok()) << config.status();
  const MixerSpec& m = MixerOf(*config);
  EXPECT_EQ(m.state_heads, 2);
  EXPECT_EQ(m.dk, 16);
  EXPECT_EQ(m.dv, 32);
  EXPECT_EQ(m.k.width, 32);
  EXPECT_EQ(m.conv.taps, 3);
  EXPECT_FALSE(m.gated());
  EXPECT_TRUE(m.clamp_log_gate);
  EXPECT_EQ(m.log_gate_min, -0.05f);
  EXPECT_EQ(m.q_map, FeatureMap::kSquaredRelu);
  EXPECT_EQ(m.k_map, FeatureMap::kSquaredRelu);
  EXPECT_EQ(m.out_norm.eps, 1e-5f);
  EXPECT_TRUE(config->tied);
  EXPECT_FALSE(m.out_norm.affine);
  EXPECT_FALSE(config->bos_token_id.has_value());
  EXPECT_THAT(config->eos_token_ids, ElementsAre(5, 6));
  EXPECT_EQ(config->max_position_embeddings, 8192);
}

TEST(Config, OldNamesAndUnknownFields) {
  const auto config =
      Parse(R"("d_model": 1024, "rms_norm_eps": 0.001, "some_future_field": {"a": [1, 2]},
      "share_conv_kernel": true)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->spec.hidden, 1024);
  EXPECT_EQ(config->spec.final_norm.eps, 0.001f);
  const auto both = Parse(R"("hidden_size": 512, "d_model": 1024)");
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->spec.hidden, 512);
}

// transformers writes infinities in two ways, of which one is no JSON; what reads no such field is
// not troubled by either.
TEST(Config, InfinitiesInFieldsThatAreNotRead) {
  for (const char* limit :
       {R"([0.0, Infinity])", R"([-Infinity, NaN])", R"([0.0, {"__float__": "Infinity"}])",
        R"("in a \"text\": Infinity")"}) {
    const auto config = Parse(absl::StrCat("\"time_step_limit\": ", limit));
    EXPECT_TRUE(config.ok()) << limit << ": " << config.status();
  }
  EXPECT_EQ(Parse(R"("norm_eps": Infinity)").status().message(),
            "config.json: norm_eps is Infinity, must be a number in [1e-30, 1]");
  EXPECT_FALSE(Parse(R"("norm_eps": NaN)").ok());
  EXPECT_FALSE(Parse(R"("time_step_limit": Infinite)").ok());
}

TEST(Config, FeatureMaps) {
  const struct {
    const char* name;
    FeatureMap expected;
  } kCases[] = {{"relu", FeatureMap::kRelu},
                {"sigmoid", FeatureMap::kSigmoid},
                {"logsigmoid", FeatureMap::kLogSigmoid},
                {"silu", FeatureMap::kSilu},
                {"swish", FeatureMap::kSilu},
                {"sqrelu", FeatureMap::kSquaredRelu},
                {"gelu", FeatureMap::kGeluTanh}};
  for (const auto& c : kCases) {
    const auto config = Parse(absl::StrCat("\"feature_map\": \"", c.name, "\""));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(MixerOf(*config).q_map, c.expected) << c.name;
  }
}

TEST(Config, DefaultTokensOnlyWhereTheVocabularyHasThem) {
  const auto two = Parse(R"("vocab_size": 2)");
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(two->bos_token_id, 1);
  EXPECT_THAT(two->eos_token_ids, IsEmpty());
  const auto none = Parse(R"("vocab_size": 1, "eos_token_id": null)");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->bos_token_id.has_value());
}

TEST(Config, RefusalsNameFieldAndRule) {
  const struct {
    const char* fields;
    const char* message;
  } kCases[] = {
      // Kind of value.
      {R"("hidden_size": "64")", R"(hidden_size is "64", must be an integer in [1, 65536])"},
      {R"("hidden_size": 64.0)", "hidden_size is 64.0, must be an integer"},
      {R"("hidden_size": null)", "hidden_size is null, must be an integer"},
      {R"("hidden_size": [64])", "hidden_size is a list, must be an integer"},
      {R"("hidden_size": {})", "hidden_size is an object, must be an integer"},
      {R"("hidden_size": true)", "hidden_size is true, must be an integer"},
      {R"("expand_k": "0.5")", "must be a number in [1e-06, 64]"},
      {R"("expand_v": null)", "expand_v is null, must be a number"},
      {R"("use_output_gate": 1)", "use_output_gate is 1, must be true or false"},
      {R"("tie_word_embeddings": null)", "tie_word_embeddings is null, must be true or false"},
      {R"("use_short_conv": "true")", "must be true or false"},
      // Range.
      {R"("num_heads": 0)", "num_heads is 0, must be an integer in [1, 1024]"},
      {R"("num_heads": -4)", "num_heads is -4, must be an integer in [1, 1024]"},
      {R"("num_hidden_layers": 1000000000)",
       "num_hidden_layers is 1000000000, must be an integer in [1, 1024]"},
      {R"("hidden_size": 2147483648)", "hidden_size is 2147483648, must be"},
      {R"("hidden_size": 18446744073709551615)", "hidden_size is 18446744073709551615, must be"},
      {R"("hidden_size": 1e400)", "is not valid JSON at byte"},
      {R"("hidden_size": 99999999999999999999)", "must be an integer"},
      {R"("vocab_size": 16777217)", "vocab_size is 16777217, must be an integer in [1, 16777216]"},
      {R"("intermediate_size": 0)", "intermediate_size is 0, must be"},
      {R"("num_kv_heads": -1)", "num_kv_heads is -1, must be"},
      {R"("conv_size": 65)", "conv_size is 65, must be an integer in [1, 64]"},
      {R"("max_position_embeddings": 0)", "max_position_embeddings is 0, must be"},
      {R"("expand_k": 0)", "expand_k is 0, must be"},
      {R"("expand_v": 1e300)", "expand_v is 1e+300, must be"},
      {R"("hidden_ratio": -4)", "hidden_ratio is -4, must be"},
      {R"("norm_eps": 0)", "norm_eps is 0, must be"},
      {R"("rms_norm_eps": -1)", "rms_norm_eps is -1, must be"},
      {R"("norm_eps": NaN)", "norm_eps is NaN, must be a number in"},
      {R"("clamp_min": 0.1)", "clamp_min is 0.1, must be a number in [-1e+30, 0]"},
      // Numbers that do not fit together.
      {R"("hidden_size": 64, "num_heads": 3)",
       "hidden_size 64 times expand_k 0.5 is 32, must be a multiple of num_heads 3"},
      {R"("hidden_size": 60, "num_heads": 2, "expand_v": 0.55)",
       "times expand_v 0.55 is 33, must be a multiple"},
      {R"("hidden_size": 2, "num_heads": 4)", "is 1, must be a multiple of num_heads 4"},
      {R"("num_heads": 4, "num_kv_heads": 3)", "num_kv_heads is 3, must divide num_heads 4"},
      {R"("num_kv_heads": 8)", "num_kv_heads is 8, must divide num_heads 4"},
      {R"("hidden_size": 65536, "num_hidden_layers": 1024, "intermediate_size": 1048576)",
       "parameters, must be at most 1000000000000"},
      {R"("hidden_size": 16384, "num_heads": 1, "expand_k": 4, "expand_v": 4,
        "num_hidden_layers": 8)",
       "the state of one sequence has 137438953472 bytes, must be at most 17179869184"},
      // Not supported.
      {R"("model_type": "gpt2")", R"(model_type is "gpt2", must be one of "gla", ")"},
      {R"("model_type": 3)", R"(model_type is 3, must be one of "gla", ")"},
      {R"("hidden_act": "relu")", R"(hidden_act is "relu", must be "swish" or "silu")"},
      {R"("hidden_act": "powlu")", "hidden_act is"},
      {R"("attn_mode": "parallel")", "attn_mode is"},
      {R"("feature_map": "elu")", R"(feature_map is "elu", must be null, "relu")"},
      {R"("use_gk": false)", "use_gk is false, must be true"},
      {R"("use_gv": true)", "use_gv is true, must be false"},
      {R"("attn": {"layers": [99], "num_heads": 2})",
       "attn: layers holds 99, must hold integers in [0, "},
      {R"("attn": [{"layers": [1]}])", "attn[0]: num_heads is missing"},
      {R"("attnres_block_size": 4)", "attnres_block_size is 4, must be null"},
      {R"("use_short_conv": true, "share_conv_kernel": true)",
       "share_conv_kernel is true, must be false"},
      {R"("quantization_config": {"bits": 4})", "quantization_config is an object, must be null"},
      // Tokens.
      {R"("bos_token_id": -1)", "bos_token_id is -1, must be an integer in [0, 31999]"},
      {R"("bos_token_id": 32000)", "bos_token_id is 32000, must be"},
      {R"("eos_token_id": 4294967298)", "eos_token_id is 4294967298, must be"},
      {R"("eos_token_id": [2, "3"])", "eos_token_id is"},
      {R"("eos_token_id": [2, [3]])", "eos_token_id is a list, must be"},
  };
  for (const auto& c : kCases) {
    const auto config = Parse(c.fields);
    ASSERT_FALSE(config.ok()) << c.fields;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(c.message)) << c.fields;
    EXPECT_EQ(config.status().message().substr(0, 13), "config.json: ") << c.fields;
    EXPECT_EQ(config.status().message().find('\n'), absl::string_view::npos) << c.fields;
  }
}

TEST(Config, RefusesWhatIsNotAJsonObject) {
  const std::string deep_list = std::string(100000, '[') + std::string(100000, ']');
  std::string deep_object = "1";
  for (int i = 0; i < 100; ++i) deep_object = absl::StrCat("{\"a\":", deep_object, "}");
  const struct {
    std::string text;
    const char* message;
  } kCases[] = {
      {"", "config.json: is not valid JSON at byte 1"},
      {"{", "config.json: is not valid JSON at byte 2"},
      {"[]", "config.json: is not a JSON object"},
      {"null", "config.json: is not a JSON object"},
      {"{} {}", "config.json: is not valid JSON at byte 4"},
      {std::string("{}\0{}", 5), "config.json: is not valid JSON at byte 3"},
      {"{\"a\": \"\xff\"}", "config.json: is not valid JSON at byte"},
      {"{\"a\": \"\\ud800\"}", "config.json: is not valid JSON at byte"},
      {absl::StrCat("{\"a\":", deep_list, "}"), "config.json: is nested more than 64 deep"},
      {deep_object, "config.json: is nested more than 64 deep"},
      {deep_list.substr(0, 100000), "config.json: is nested more than 64 deep"},
      {"{}", "config.json: model_type is missing, must be one of \"gla\""},
  };
  for (const auto& c : kCases) {
    const auto config = ParseConfig(c.text, "config.json");
    ASSERT_FALSE(config.ok()) << c.text.substr(0, 40);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(c.message));
  }
}

TEST(Config, LongAndUnprintableValuesMakeShortLines) {
  const auto config =
      Parse(absl::StrCat("\"feature_map\": \"\\u001b[31m\\n", std::string(100000, 'x'), "\""));
  ASSERT_FALSE(config.ok());
  EXPECT_LT(config.status().message().size(), 400u);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("\\x1b[31m\\n"));
}

TEST(GenerationConfig, EosReplacesThatOfTheConfig) {
  const struct {
    const char* text;
    std::vector<int32_t> expected;
  } kCases[] = {
      {R"({"eos_token_id": 7})", {7}},
      {R"({"eos_token_id": [7, 9]})", {7, 9}},
      {R"({"eos_token_id": null})", {2}},
      {R"({"temperature": 0.7})", {2}},
  };
  for (const auto& c : kCases) {
    auto config = Parse("");
    ASSERT_TRUE(config.ok());
    ASSERT_TRUE(ApplyGenerationConfig(c.text, "generation_config.json", &*config).ok());
    EXPECT_EQ(config->eos_token_ids, c.expected) << c.text;
  }
}

TEST(GenerationConfig, Refusals) {
  for (const char* text : {R"({"eos_token_id": 32000})", R"({"eos_token_id": "2"})", "[2]", "{"}) {
    auto config = Parse("");
    ASSERT_TRUE(config.ok());
    const absl::Status status = ApplyGenerationConfig(text, "generation_config.json", &*config);
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json: ")) << text;
    EXPECT_THAT(config->eos_token_ids, ElementsAre(2)) << text;
  }
}

}  // namespace
}  // namespace sluice
