#include "server/options.h"

#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/help.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& args,
                                  const std::map<std::string, std::string>& environment = {}) {
  std::vector<std::string> entries;
  for (const auto& [name, value] : environment) entries.push_back(name + "=" + value);
  return ParseCommandLine(args, entries);
}

std::string ErrorOf(const std::vector<std::string>& args,
                    const std::map<std::string, std::string>& environment = {}) {
  const absl::StatusOr<CommandLine> parsed = Parse(args, environment);
  EXPECT_FALSE(parsed.ok());
  const std::string message(parsed.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

TEST(Options, EverySyntaxOfAFlag) {
  const absl::StatusOr<CommandLine> parsed = Parse(
      {"--model=m", "--threads", "3", "-max_streams=7", "--novllm_metrics", "--write_stall=1m30s"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options.model, "m");
  EXPECT_EQ(parsed->options.threads, 3);
  EXPECT_EQ(parsed->options.max_streams, 7);
  EXPECT_FALSE(parsed->options.vllm_metrics);
  EXPECT_EQ(parsed->options.write_stall, absl::Seconds(90));
  EXPECT_TRUE(Parse({"--model=m", "--vllm_metrics"})->options.vllm_metrics);
  EXPECT_EQ(Parse({"--model=m", "--device=cuda:1"})->options.device, "cuda:1");
  EXPECT_FALSE(Parse({"--model=m", "--nobatch_invariant"})->options.batch_invariant);
  EXPECT_FALSE(Parse({"--model=m", "--vllm_metrics=false"})->options.vllm_metrics);
  EXPECT_EQ(Parse({"--model=m", "--max_connection_age=inf"})->options.max_connection_age,
            absl::InfiniteDuration());
}

TEST(Options, KnowsWhatWasGiven) {
  const absl::StatusOr<CommandLine> parsed =
      Parse({"--model=m", "--threads", "3"}, {{"SLUICE_HTTP_LISTEN", "127.0.0.1:1"}});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->options.given,
              testing::UnorderedElementsAre("http_listen", "model", "threads"));
}

TEST(Options, WhatIsWrongIsNamed) {
  EXPECT_THAT(ErrorOf({"--model=m", "--no_such"}), HasSubstr("unknown flag '--no_such'"));
  EXPECT_THAT(ErrorOf({"--model=m", "--nothreads"}), HasSubstr("unknown flag"));
  EXPECT_THAT(ErrorOf({"--model=m", "serve"}), HasSubstr("'serve' is not a flag"));
  EXPECT_THAT(ErrorOf({"--model=m", "--threads"}), HasSubstr("--threads needs a value"));
  EXPECT_THAT(ErrorOf({"--model=m", "--threads=two"}), HasSubstr("--threads is 'two'"));
  EXPECT_THAT(ErrorOf({"--model=m", "--threads=-1"}), HasSubstr("must be in [0, 1024]"));
  EXPECT_THAT(ErrorOf({"--model=m", "--threads=1025"}), HasSubstr("must be in [0, 1024]"));
  EXPECT_THAT(ErrorOf({"--model=m", "--threads=99999999999999999999"}), HasSubstr("--threads"));
  EXPECT_THAT(ErrorOf({"--model=m", "--write_stall=0s"}), HasSubstr("must be at least 1ms"));
  for (const char* device :
       {"gpu", "cuda:", "cuda:-1", "cuda:12345", "cuda:0x", "cuda:N", "cpu:0"}) {
    EXPECT_THAT(ErrorOf({"--model=m", std::string("--device=") + device}),
                HasSubstr("must be auto, cpu, cuda, cuda:N"));
  }
  EXPECT_THAT(ErrorOf({"--model=m", "--vllm_metrics=maybe"}), HasSubstr("true or false"));
  EXPECT_THAT(ErrorOf({}), HasSubstr("--model=DIR is required"));
}

TEST(Options, AMisspeltFlagIsNamed) {
  EXPECT_THAT(ErrorOf({"--model=m", "--max_steams=1"}),
              HasSubstr("unknown flag '--max_steams=1'; did you mean --max_streams?"));
  EXPECT_THAT(ErrorOf({"--modle=m"}), HasSubstr("did you mean --model?"));
  EXPECT_THAT(ErrorOf({"--model=m", "--verbose"}), HasSubstr("goes with --version"));
}

TEST(Options, BytesMayHaveUnits) {
  EXPECT_EQ(Parse({"--model=m", "--host_state_bytes=2G"})->options.host_state_bytes,
            int64_t{2} << 30);
  EXPECT_EQ(Parse({"--model=m", "--max_message_bytes=1MiB"})->options.max_message_bytes, 1 << 20);
  EXPECT_EQ(Parse({"--model=m", "--memory_limit=1.5g"})->options.memory_limit, int64_t{3} << 29);
  EXPECT_THAT(ErrorOf({"--model=m", "--memory_limit=2GG"}), HasSubstr("such as 4096 or 2G"));
  EXPECT_THAT(ErrorOf({"--model=m", "--max_message_bytes=4G"}), HasSubstr("up to 2147483647"));
  EXPECT_THAT(ErrorOf({"--model=m", "--max_streams=1K"}), HasSubstr("is not a whole number up to"));
}

TEST(Options, UnknownVariablesAreToldOf) {
  const std::map<std::string, std::string> others = {
      {"SLUICE_TOKEN", "t"},        {"SLUICE_SERVICE_HOST", "h"}, {"SLUICE_PORT_50051_TCP", "p"},
      {"SLUICE_ADMIN_PORT", "tcp"}, {"SLUICE_MOOD", "dark"},      {"MODLE", "x"}};
  const absl::StatusOr<CommandLine> parsed = Parse({"--model=m"}, others);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->warnings.size(), 1u);
  EXPECT_EQ(parsed->warnings[0], "environment SLUICE_MOOD is ignored: no flag has this name");
  EXPECT_THAT(ErrorOf({"--model=m"}, {{"SLUICE_MAX_STREAM", "7"}}),
              HasSubstr("environment SLUICE_MAX_STREAM: no flag has this name; did you mean "
                        "SLUICE_MAX_STREAMS?"));
  EXPECT_THAT(ErrorOf({"--model=m"}, {{"SLUICE_MDOEL", "7"}}), HasSubstr("SLUICE_MODEL?"));
}

TEST(Options, TheCommandLineWinsOverTheEnvironment) {
  const std::map<std::string, std::string> environment = {{"SLUICE_MODEL", "e"},
                                                          {"SLUICE_THREADS", "5"}};
  const absl::StatusOr<CommandLine> parsed = Parse({"--threads=6"}, environment);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options.model, "e");
  EXPECT_EQ(parsed->options.threads, 6);
  EXPECT_THAT(ErrorOf({"--model=m"}, {{"SLUICE_THREADS", "x"}}),
              HasSubstr("environment SLUICE_THREADS"));
}

TEST(Options, Flagfile) {
  const std::string path = testing::TempDir() + "/flags";
  std::ofstream(path) << "# a comment\n\n  --model=f  \n--threads=2\n";
  const absl::StatusOr<CommandLine> parsed = Parse({"--flagfile=" + path, "--threads=4"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options.model, "f");
  EXPECT_EQ(parsed->options.threads, 4);
  std::ofstream(path) << "--threads=none\n";
  EXPECT_THAT(ErrorOf({"--flagfile", path}), HasSubstr(path + ": --threads"));
  std::ofstream(path) << "--flagfile=" << path << "\n";
  EXPECT_THAT(ErrorOf({"--flagfile", path}), HasSubstr("nested too deep"));
  EXPECT_THAT(ErrorOf({"--flagfile=/no/such/file"}), HasSubstr("No such file"));
  EXPECT_THAT(ErrorOf({"--model=m", "--flagfile=/etc"}), HasSubstr("'/etc': Is a directory"));
  std::ofstream(path) << "--treads=4\n";
  EXPECT_THAT(ErrorOf({"--flagfile", path}), HasSubstr(path + ": unknown flag '--treads=4'; did"));
}

TEST(Options, HelpNeedsNoModelAndNamesEveryFlag) {
  EXPECT_EQ(Parse({"--help"})->action, CommandLineAction::kHelp);
  EXPECT_EQ(Parse({"-h"})->action, CommandLineAction::kHelp);
  EXPECT_EQ(Parse({"--verbose", "--version"})->action, CommandLineAction::kVersionVerbose);
  EXPECT_EQ(Parse({"--help=markdown"})->action, CommandLineAction::kHelpMarkdown);
  EXPECT_EQ(Parse({"--help=metrics"})->action, CommandLineAction::kHelpMetrics);
  EXPECT_EQ(Parse({"--version"})->action, CommandLineAction::kVersion);
  const auto flags = FlagValues(ServerOptions());
  EXPECT_LT(flags.size(), 64u);
  std::set<std::string> names;
  for (const FlagValue& flag : flags) {
    const std::string& name = flag.name;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_THAT(HelpText(), HasSubstr("--" + name + "="));
    EXPECT_THAT(HelpMarkdown(), HasSubstr("`--" + name + "="));
  }
}

TEST(Options, TheManualHasEveryFlag) {
  const std::string page = ManPage(ServerManual());
  const std::string bash = BashCompletion(ServerManual());
  const std::string zsh = ZshCompletion(ServerManual());
  for (const FlagValue& flag : FlagValues(ServerOptions())) {
    EXPECT_THAT(page, HasSubstr(".B \\-\\-" + flag.name + "="));
    EXPECT_THAT(bash, HasSubstr("--" + flag.name + "="));
    EXPECT_THAT(zsh, HasSubstr("'--" + flag.name + "=["));
  }
  EXPECT_THAT(bash, HasSubstr("--log_level) COMPREPLY=($(compgen"));
  EXPECT_THAT(VerboseVersion(), HasSubstr("libc.so.6 "));
}

TEST(Options, HelpNamesEveryExitCode) {
  for (const char* line :
       {"\n  0   The daemon drained.\n", "\n  2   ", "\n  3   ", "\n  70  ", "\n  74  "}) {
    EXPECT_THAT(HelpText(), HasSubstr(line));
  }
}

TEST(Options, NumbersAreExported) {
  std::map<std::string, double> numbers;
  for (const FlagValue& flag : FlagValues(ServerOptions())) {
    if (flag.number.has_value()) numbers[flag.name] = *flag.number;
  }
  EXPECT_EQ(numbers["max_streams"], 4096);
  EXPECT_EQ(numbers["write_stall"], 10);
  EXPECT_EQ(numbers.count("model"), 0u);
}

// A default that its own bounds refuse would make an operator who writes it down fail.
TEST(Options, EveryDefaultIsAccepted) {
  std::vector<std::string> args;
  for (const FlagValue& flag : FlagValues(ServerOptions())) {
    args.push_back("--" + flag.name + "=" + flag.text);
  }
  args.push_back("--model=m");
  EXPECT_TRUE(Parse(args).ok()) << Parse(args).status();
}

}  // namespace
}  // namespace sluice
