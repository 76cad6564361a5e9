// Durations and times of messages as Abseil's, and back.
#ifndef SLUICE_CLIENT_PROTO_TIME_H_
#define SLUICE_CLIENT_PROTO_TIME_H_

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace sluice {

absl::Duration FromProto(const google::protobuf::Duration& duration);
absl::Time FromProto(const google::protobuf::Timestamp& time);
// `duration` is finite.
google::protobuf::Duration ToProto(absl::Duration duration);

}  // namespace sluice

#endif  // SLUICE_CLIENT_PROTO_TIME_H_
