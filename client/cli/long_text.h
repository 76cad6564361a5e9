// The tokens of a text of any size, by calls of Tokenize that each fit into a message.
#ifndef SLUICE_CLIENT_CLI_LONG_TEXT_H_
#define SLUICE_CLIENT_CLI_LONG_TEXT_H_

#include <istream>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "client/client.h"
#include "sluice/v1/tokens.pb.h"

namespace sluice {

// Reads `in` to its end and gives `on_part` the tokens in order; false from it ends the reading. A
// text of up to 256 KiB is one part. A longer one is tokenized in windows that overlap by 16 KiB,
// and is cut in an overlap where both windows have the same tokens for some way on either side: so
// the ids are those of the whole text for any tokenizer that looks no further than that.
// `request` is what each call is like, but for the text. INVALID_ARGUMENT for what is not UTF-8 and
// for a tokenizer whose pieces do not tell how many bytes they stand for.
absl::Status TokenizeAll(const Client& client, const CallOptions& call,
                         const v1::TokenizeRequest& request, std::istream* in,
                         absl::FunctionRef<bool(const v1::TokenizeResponse& part)> on_part);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_LONG_TEXT_H_
