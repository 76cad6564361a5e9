#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/cli/cli_test.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class BenchCommandTest : public CliTest {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string File(const std::string& name) const { return (folder_ / name).string(); }
  static std::string Read(const std::string& file) {
    std::ifstream in(file);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }

  std::filesystem::path folder_;
};

TEST_F(BenchCommandTest, PrintsAReport) {
  EXPECT_EQ(
      Run({"bench", "--requests=3", "--concurrency=2", "--prompt-tokens=5", "--max-new-tokens=3"}),
      0);
  EXPECT_THAT(out_, StartsWith("tiny on cpu at "));
  EXPECT_THAT(out_, HasSubstr("requests      3 ok, 0 rejected, 0 failed, 0 cut off"));
  EXPECT_EQ(server_.generate_request.tokens().ids_size(), 5);
  EXPECT_EQ(server_.generate_request.stop().max_new_tokens(), 3);
  EXPECT_TRUE(server_.generate_request.stop().ignore_eos());
  EXPECT_TRUE(server_.generate_request.output().token_ids());
  EXPECT_FALSE(server_.generate_request.bypass_prefix_cache());
}

TEST_F(BenchCommandTest, JsonIsOneLine) {
  EXPECT_EQ(Run({"bench", "--requests=2", "--rate=1000", "--prompt=Hi", "--json",
                 "--bypass-prefix-cache"}),
            0);
  EXPECT_THAT(out_, HasSubstr(R"("ok":2)"));
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1);
  EXPECT_EQ(server_.generate_request.text(), "Hi");
  EXPECT_TRUE(server_.generate_request.bypass_prefix_cache());
}

TEST_F(BenchCommandTest, WritesFilesBesideTheTable) {
  EXPECT_EQ(Run({"bench", "--requests=4", "--slo-ttft=1h", "--json=" + File("a.json"),
                 "--html=" + File("a.html")}),
            0);
  EXPECT_THAT(out_, HasSubstr("met by 4 of 4 requests, 100.0 %"));
  const nlohmann::json report = nlohmann::json::parse(Read(File("a.json")), nullptr, false);
  EXPECT_EQ(report["requests"].size(), 4u);
  EXPECT_EQ(report["model_answer"]["vocab_size"], 100);
  EXPECT_EQ(report["options"]["requests"], "4");
  EXPECT_EQ(report["slo"]["met"], 4);
  EXPECT_THAT(Read(File("a.html")), StartsWith("<!doctype html>"));

  EXPECT_EQ(Run({"bench", "--compare", File("a.json"), File("a.json"), "--html=" + File("c.html")}),
            0);
  EXPECT_THAT(out_, HasSubstr("requests /s"));
  EXPECT_THAT(Read(File("c.html")), HasSubstr("\"comparison\":[{"));
}

TEST_F(BenchCommandTest, ShapesAreTakenInTurn) {
  std::ofstream(File("shapes")) << "3,7\n{\"prompt\": \"Hello\", \"output_tokens\": 9}\n";
  EXPECT_EQ(Run({"bench", "--requests=1", "--warmup=0", "--shapes=" + File("shapes")}), 0);
  EXPECT_EQ(server_.generate_request.tokens().ids_size(), 3);
  EXPECT_EQ(server_.generate_request.stop().max_new_tokens(), 7);
  EXPECT_EQ(Run({"bench", "--requests=2", "--warmup=0", "--shapes=" + File("shapes")}), 0);
  EXPECT_EQ(server_.generate_request.text(), "Hello");
  EXPECT_EQ(server_.generate_request.stop().max_new_tokens(), 9);
}

TEST_F(BenchCommandTest, RejectsAreShownAndFailOnlyWhenAllAre) {
  server_.generate = [](grpc::ServerWriter<v1::GenerateResponse>*) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  };
  EXPECT_EQ(Run({"bench", "--requests=3", "--warmup=0"}), 1);
  EXPECT_THAT(out_, HasSubstr("0 ok, 3 rejected, 0 failed"));
  EXPECT_THAT(out_, HasSubstr("3 times RESOURCE_EXHAUSTED: full\n"));

  int calls = 0;
  server_.generate = [&](grpc::ServerWriter<v1::GenerateResponse>* writer) {
    if (++calls == 2) return grpc::Status(grpc::StatusCode::INTERNAL, "broken");
    for (const v1::GenerateResponse& event : server_.generate_events) writer->Write(event);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"bench", "--requests=3", "--warmup=0"}), 0);
  EXPECT_THAT(out_, HasSubstr("2 ok, 0 rejected, 1 failed"));
  EXPECT_THAT(out_, HasSubstr("1 times INTERNAL: broken\n"));
}

TEST_F(BenchCommandTest, BadCommandLinesAreOneLineAndExitCode2) {
  std::ofstream(File("shapes")) << "3,7\n3\n";
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--burstiness=0"}, "--burstiness must be in [0.01, 1000000]"},
      {{"--arrivals=often"}, "--arrivals=often: must be poisson or uniform"},
      {{"--warmup=soon"}, "--warmup=soon: must be a number of requests or a duration, such as 5s"},
      {{"--prompt-tokens=0"}, "--prompt-tokens must be at least 1"},
      {{"--max-new-tokens=uniform:9:1"}, "--max-new-tokens=uniform:9:1: must be N, uniform:"},
      {{"--shapes=" + File("shapes")}, File("shapes") + ":2: must be a JSON object or"},
      {{"--shapes=" + File("shapes"), "--prompt=x"}, "from --shapes or from --prompt, not"},
      {{"--json=/nowhere/x.json"}, "/nowhere/x.json: No such file or directory"},
      {{"--html=/nowhere/x.html"}, "/nowhere/x.html: No such file or directory"},
      {{"--compare", "one"}, "--compare takes two files"},
      {{"--compare", File("shapes"), File("shapes")}, "shapes: is not a report of sluice bench"},
      {{"extra"}, "takes no arguments"},
  };
  for (const auto& [flags, message] : wrong) {
    std::vector<std::string> args = {"bench", "--requests=1"};
    args.insert(args.end(), flags.begin(), flags.end());
    EXPECT_EQ(Run(args), 2) << message;
    EXPECT_THAT(err_, HasSubstr(message));
    EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
    EXPECT_EQ(out_, "");
  }
}

}  // namespace
}  // namespace sluice
