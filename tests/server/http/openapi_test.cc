#include "server/http/openapi.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/http/http_door.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

TEST(OpenApiTest, HasEveryPathAndNoOther) {
  std::set<std::string> described;
  const Json document = Json::parse(OpenApi());
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      if (method != "parameters") {
        described.insert(absl::StrCat(absl::AsciiStrToUpper(method), " ", path));
      }
    }
  }
  std::set<std::string> served;
  for (const auto& [method, path] : HttpDoor::Paths()) {
    served.insert(absl::StrCat(method, " ", path));
  }
  EXPECT_EQ(described, served) << "server/http/openapi.json describes what HttpDoor serves";
}

// Calls `see` with every reference in the document.
template <typename See>
void EachReference(const Json& json, const See& see) {
  for (const auto& [name, value] : json.items()) {
    if (name == "$ref") see(value.template get<std::string>());
    if (value.is_structured()) EachReference(value, see);
  }
}

TEST(OpenApiTest, EveryReferenceIsThereAndEverythingIsReferredTo) {
  const Json document = Json::parse(OpenApi());
  std::set<std::string> referred;
  EachReference(document, [&](const std::string& reference) {
    ASSERT_EQ(reference.substr(0, 2), "#/");
    EXPECT_TRUE(document.contains(Json::json_pointer(reference.substr(1)))) << reference;
    referred.insert(reference);
  });
  for (const auto& [kind, components] : document["components"].items()) {
    if (kind == "securitySchemes") continue;
    for (const auto& [name, component] : components.items()) {
      EXPECT_TRUE(referred.count(absl::StrCat("#/components/", kind, "/", name))) << name;
    }
  }
}

}  // namespace
}  // namespace sluice
