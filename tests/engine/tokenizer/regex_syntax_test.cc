#include "engine/tokenizer/regex_syntax.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/tokenizer/pattern.h"

namespace sluice {
namespace {

TEST(RegexSyntax, Accepted) {
  for (const char* source :
       {"", "a|b", R"([^\s\p{L}\p{N}]+)", R"(\s+(?!\S))", R"((?i:'s|'t))", R"(\p{N}{1,3})",
        "(?i)abc", R"(a{2}b{2,}c{2,3}?)", R"([一-龥぀-ゟ]+)", R"(\p{Han}\P{Lu}\p{^L})",
        R"(\u00e9\x{4e00}\x41)", R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])",
        R"((?<=a)b(?<!c)(?>d))", R"([\S\w\d]++)"}) {
    const auto pattern = Pattern::Regex(source);
    EXPECT_TRUE(pattern.ok()) << source << ": " << pattern.status();
  }
}

TEST(RegexSyntax, Refused) {
  for (const char* source : {R"(\b)",
                             R"(\h)",
                             R"(\K)",
                             R"((a)\1)",
                             "(?R)",
                             "(?<n>a)",
                             "(*FAIL)",
                             "(?m:a)",
                             "a(?i)b",
                             "[a[b]]",
                             "[a&&b]",
                             "[[:alpha:]]",
                             "[]a]",
                             "[a",
                             "a{,3}",
                             "a{2}?",
                             "a{1,2}+",
                             "{",
                             "\\",
                             R"(\p)",
                             R"(\pL)",
                             R"(\p{L)",
                             R"(\p{sc:Han})",
                             R"(\x)",
                             R"(\x{41)",
                             R"(\xe9)",
                             R"(\u12)",
                             R"([\W])",
                             R"(\p{Nonsense})",
                             "(",
                             ")",
                             "*"}) {
    const auto pattern = Pattern::Regex(source);
    EXPECT_FALSE(pattern.ok()) << source;
    EXPECT_FALSE(pattern.status().message().empty());
  }
  EXPECT_FALSE(Pattern::Regex(std::string(kMaxRegexSize + 1, 'a')).ok());
}

}  // namespace
}  // namespace sluice
