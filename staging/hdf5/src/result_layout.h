// Names within a result file, for who writes and who reads it.
#pragma once

namespace farcall::staging {

inline constexpr const char* kResultFormat = "farcall result";
inline constexpr const char* kFormatAttribute = "format";
inline constexpr const char* kTaskAttribute = "task_id";
// What our reader goes by: short text, as handles.h says, whose value is the name of the group.
inline constexpr const char* kGroupAttribute = "group";
inline constexpr const char* kHashAttribute = "blake2b";  // of the group
// JSON: [[offset in the payload, size, dataset], …], ascending; what lies between is the fixed
// start of a native value, or zeros.
inline constexpr const char* kMapPath = "payload/map";
inline constexpr const char* kHeadPath = "payload/head";

}  // namespace farcall::staging
