// Flags of the fields that `generate` and `chat` share.
#ifndef SLUICE_CLIENT_CLI_GENERATE_FLAGS_H_
#define SLUICE_CLIENT_CLI_GENERATE_FLAGS_H_

#include "client/cli/flags.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

// Each adds a section whose flags set the message's fields; the message outlives the parse. The
// first one also sets the defaults that the command line has and the API has not.
void AddSamplingFlags(v1::SamplingParams* sampling, FlagSet* flags);
void AddStopFlags(v1::StopConditions* stop, FlagSet* flags);
void AddSessionFlags(v1::GenerateRequest* request, FlagSet* flags);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_GENERATE_FLAGS_H_
