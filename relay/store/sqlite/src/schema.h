// Tables, their version, and how ranges and the like are packed into columns.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "relay/store/records.h"
#include "sqlite/database.h"

namespace farcall::relay {

inline constexpr int kSchemaVersion = 2;

// Creates the tables in an empty file; kVersion for a file of a newer relay.
Result<void> prepare_schema(sqlite::Database& database);

std::string pack_numbers(const std::vector<std::uint32_t>& numbers);
Result<std::vector<std::uint32_t>> unpack_numbers(std::string_view packed);
std::string pack_ranges(const RangeSet& ranges);
Result<RangeSet> unpack_ranges(std::string_view packed);
// Three sets, each after its count of ranges.
std::string pack_by_state(const std::array<RangeSet, 3>& sets);
Result<std::array<RangeSet, 3>> unpack_by_state(std::string_view packed);
std::string pack_history(const TaskHistory& history);
Result<TaskHistory> unpack_history(std::string_view packed);

std::string_view id_view(const IdBytes& id);
Result<IdBytes> id_from(std::string_view blob);

}  // namespace farcall::relay
