// The place of the source tree, for tests that read its models and goldens.
#ifndef SLUICE_TESTS_FAKES_TEST_PATHS_H_
#define SLUICE_TESTS_FAKES_TEST_PATHS_H_

#include <string>
#include <string_view>

namespace sluice {

// `relative` below the source tree's root, for example "deploy/models/classics-12m".
std::string SourcePath(std::string_view relative);

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_TEST_PATHS_H_
