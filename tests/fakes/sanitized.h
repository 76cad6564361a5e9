// Tells whether this is a sanitized build. It looks for races and bad accesses, which a few rounds
// show; all rounds of a long test would take it minutes.
#ifndef SLUICE_TESTS_FAKES_SANITIZED_H_
#define SLUICE_TESTS_FAKES_SANITIZED_H_

namespace sluice {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_SANITIZED_H_
