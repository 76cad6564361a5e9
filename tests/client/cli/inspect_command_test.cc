// sluice inspect, which needs no server.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/cli/cli_test.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using InspectCommandTest = CliTest;

const std::string& BundledModel() {
  static const std::string* path = new std::string(SourcePath("deploy/models/classics-12m"));
  return *path;
}

TEST_F(InspectCommandTest, SaysWhatTheModelIs) {
  EXPECT_EQ(Run({"inspect", BundledModel()}), 0);
  EXPECT_THAT(out_, HasSubstr("heads           3 of dk 64 and dv 128, 3 kv heads\n"));
  EXPECT_THAT(out_,
              HasSubstr("state           589,824 bytes a session, 1,820 sessions in a GiB\n"));
  EXPECT_THAT(out_, HasSubstr("served          yes\n"));
  EXPECT_EQ(err_, "");
}

TEST_F(InspectCommandTest, JsonCountsStatesInTheMemoryGiven) {
  EXPECT_EQ(Run({"inspect", "--json", "--memory=100000000", BundledModel()}), 0);
  const nlohmann::json json = nlohmann::json::parse(out_);
  EXPECT_TRUE(json["served"].get<bool>());
  for (const nlohmann::json& device : json["devices"]) {
    EXPECT_EQ(device["slots"].get<int64_t>(),
              (100'000'000 - device["weight_bytes"].get<int64_t>()) / 589'824);
  }
  EXPECT_EQ(Run({"inspect", "--json", "--memory=1", BundledModel()}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["devices"][0]["slots"], 0);
}

TEST_F(InspectCommandTest, WhatIsNoModelIsExitCode2) {
  EXPECT_EQ(Run({"inspect", SourcePath("client")}), 2);
  EXPECT_THAT(out_, HasSubstr("refused         config.json: cannot be opened"));
  EXPECT_THAT(out_, HasSubstr("served          no\n"));
  EXPECT_EQ(Run({"inspect", "--json", SourcePath("client")}), 2);
  EXPECT_EQ(nlohmann::json::parse(out_)["refusals"].size(), 3u);
}

TEST_F(InspectCommandTest, BadCommandLines) {
  EXPECT_EQ(Run({"inspect"}), 2);
  EXPECT_EQ(err_, "sluice inspect: takes one directory (see sluice inspect --help)\n");
  EXPECT_EQ(Run({"inspect", "--memory=0", BundledModel()}), 2);
  EXPECT_EQ(Run({"inspect", "--address=x:1", BundledModel()}), 2);  // it calls nobody
}

}  // namespace
}  // namespace sluice
