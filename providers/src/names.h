// Tables of the words that stand for enumerators in JSON and in messages.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "base/config.h"
#include "providers/provider.h"

namespace farcall::providers {

inline constexpr std::array<std::pair<JobState, std::string_view>, 5> kJobStateNames = {{
    {JobState::kUnknown, "unknown"},
    {JobState::kQueued, "queued"},
    {JobState::kRunning, "running"},
    {JobState::kEnding, "ending"},
    {JobState::kEnded, "ended"},
}};

inline constexpr std::array<std::pair<EndedBy, std::string_view>, 8> kEndedByNames = {{
    {EndedBy::kUnknown, "unknown"},
    {EndedBy::kCompleted, "completed"},
    {EndedBy::kFailed, "failed"},
    {EndedBy::kCancelled, "cancelled"},
    {EndedBy::kWalltime, "walltime"},
    {EndedBy::kNodeFailure, "node_failure"},
    {EndedBy::kPreempted, "preempted"},
    {EndedBy::kOutOfMemory, "out_of_memory"},
}};

inline constexpr std::array<std::pair<KeyType, std::string_view>, 8> kKeyTypeNames = {{
    {KeyType::kString, "string"},
    {KeyType::kInteger, "integer"},
    {KeyType::kNumber, "number"},
    {KeyType::kBool, "bool"},
    {KeyType::kDuration, "duration"},
    {KeyType::kStringList, "string_list"},
    {KeyType::kStringMap, "string_map"},
    {KeyType::kMap, "map"},
}};

template <class Enum, std::size_t N>
std::string_view name_of(const std::array<std::pair<Enum, std::string_view>, N>& table,
                         Enum value) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  return "unknown";
}

template <class Enum, std::size_t N>
std::optional<Enum> value_of(const std::array<std::pair<Enum, std::string_view>, N>& table,
                             std::string_view name) {
  for (const auto& [value, known] : table) {
    if (known == name) return value;
  }
  return std::nullopt;
}

}  // namespace farcall::providers
