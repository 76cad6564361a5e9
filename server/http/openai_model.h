// The loaded model as an entry of /v1/models.
#ifndef SLUICE_SERVER_HTTP_OPENAI_MODEL_H_
#define SLUICE_SERVER_HTTP_OPENAI_MODEL_H_

#include <cstdint>
#include <string>

#include "sluice/v1/model.pb.h"

namespace sluice {

// `created`: seconds of Unix time. What OpenAI's API has no field for is in "sluice".
std::string ModelJson(const v1::Model& model, int64_t created);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_MODEL_H_
