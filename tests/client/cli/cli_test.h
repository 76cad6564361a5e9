// Runs `sluice` as a user does, against a server that answers what the test wrote down.
#ifndef SLUICE_TESTS_CLIENT_CLI_CLI_TEST_H_
#define SLUICE_TESTS_CLIENT_CLI_CLI_TEST_H_

#include <sstream>
#include <string>
#include <vector>

#include "client/cli/run.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace sluice {

class CliTest : public ::testing::Test {
 protected:
  // Runs a command with the server's address in the environment, and returns the exit code.
  int Run(const std::vector<std::string>& args) {
    std::istringstream in(in_);
    std::ostringstream out;
    std::ostringstream err;
    Io io{in, out, err};
    io.in_is_terminal = in_is_terminal_;
    io.environment = [this](const char* name) {
      return std::string(name) == "SLUICE_ADDRESS" ? server_.address().c_str() : nullptr;
    };
    io.variables = variables_;
    const int exit_code = RunSluice(args, io);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }

  FakeServer server_;
  std::string in_;
  bool in_is_terminal_ = false;
  std::vector<std::string> variables_;
  std::string out_;
  std::string err_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CLIENT_CLI_CLI_TEST_H_
