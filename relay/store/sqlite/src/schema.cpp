#include "schema.h"

#include <cstring>

namespace farcall::relay {

namespace {
constexpr const char* kTables = R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE user_key (key TEXT PRIMARY KEY, user TEXT NOT NULL, owner INTEGER NOT NULL,
  created_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE invitation (hash TEXT PRIMARY KEY, user TEXT NOT NULL, expires_ms INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE endpoint (id BLOB PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL,
  key TEXT NOT NULL, description TEXT NOT NULL, epoch INTEGER NOT NULL, instance BLOB NOT NULL,
  host TEXT NOT NULL, last_seen_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE function (user TEXT NOT NULL, id BLOB NOT NULL, record BLOB NOT NULL,
  created_ms INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (user, id));
CREATE TABLE submission (id BLOB PRIMARY KEY, header BLOB NOT NULL, received_ms INTEGER NOT NULL,
  sealed INTEGER NOT NULL, count INTEGER NOT NULL, aborted INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL, collected_ms INTEGER NOT NULL, cancel_wished BLOB NOT NULL,
  collected BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk (submission BLOB NOT NULL, first INTEGER NOT NULL, sizes BLOB NOT NULL,
  hash BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (submission, first));
CREATE TABLE outcomes (submission BLOB NOT NULL, seq INTEGER NOT NULL, by_state BLOB NOT NULL,
  outcomes BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (submission, seq));
CREATE TABLE history (submission BLOB NOT NULL, task INTEGER NOT NULL, history BLOB NOT NULL,
  PRIMARY KEY (submission, task)) WITHOUT ROWID;
CREATE TABLE aside (endpoint BLOB NOT NULL, submission BLOB NOT NULL, received_ms INTEGER NOT NULL,
  tasks INTEGER NOT NULL, outcomes BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE tombstone (submission BLOB PRIMARY KEY, user TEXT NOT NULL, until_ms INTEGER NOT NULL)
  WITHOUT ROWID;
)sql";

// Since version 2.
constexpr const char* kBlobTables = R"sql(
CREATE TABLE blob_use (submission BLOB NOT NULL, hash TEXT NOT NULL, size INTEGER NOT NULL,
  PRIMARY KEY (submission, hash)) WITHOUT ROWID;
)sql";

void put_u32(std::string& out, std::uint32_t number) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>((number >> shift) & 0xff);
}
std::uint32_t get_u32(std::string_view packed, std::size_t position) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i)
    number |= static_cast<std::uint32_t>(static_cast<unsigned char>(packed[position * 4 + i]))
              << (8 * i);
  return number;
}
std::vector<std::uint32_t> flat(const RangeSet& ranges) {
  std::vector<std::uint32_t> numbers;
  numbers.reserve(ranges.ranges().size() * 2);
  for (Range range : ranges.ranges()) {
    numbers.push_back(range.first);
    numbers.push_back(range.last);
  }
  return numbers;
}
}  // namespace

Result<void> prepare_schema(sqlite::Database& database) {
  auto version = database.schema_version();
  if (!version) return fail(version.error());
  if (*version > kSchemaVersion)
    return fail(ErrorCode::kVersion,
                "{} was written by a newer farcall-relay (schema {}, this one knows {}): start "
                "that version, or restore a backup made by this one",
                database.path(), *version, kSchemaVersion);
  if (*version == kSchemaVersion) return {};
  auto transaction = sqlite::Transaction::begin(database);
  if (!transaction) return fail(transaction.error());
  if (*version < 1)
    if (auto made = database.execute(kTables); !made) return made;
  if (auto made = database.execute(kBlobTables); !made) return made;
  if (auto set = database.set_schema_version(kSchemaVersion); !set) return set;
  return transaction->commit();
}

std::string pack_numbers(const std::vector<std::uint32_t>& numbers) {
  std::string packed;
  packed.reserve(numbers.size() * 4);
  for (std::uint32_t number : numbers) put_u32(packed, number);
  return packed;
}
Result<std::vector<std::uint32_t>> unpack_numbers(std::string_view packed) {
  if (packed.size() % 4 != 0)
    return fail(ErrorCode::kCorrupt, "a column of numbers has {} bytes", packed.size());
  std::vector<std::uint32_t> numbers(packed.size() / 4);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = get_u32(packed, i);
  return numbers;
}

std::string pack_ranges(const RangeSet& ranges) { return pack_numbers(flat(ranges)); }
Result<RangeSet> unpack_ranges(std::string_view packed) {
  auto numbers = unpack_numbers(packed);
  if (!numbers) return fail(numbers.error());
  auto ranges = RangeSet::from_flat(*numbers);
  if (!ranges) return fail(ErrorCode::kCorrupt, "a column of ranges is not ascending");
  return *ranges;
}

std::string pack_by_state(const std::array<RangeSet, 3>& sets) {
  std::string packed;
  for (const RangeSet& set : sets) {
    put_u32(packed, static_cast<std::uint32_t>(set.ranges().size()));
    packed += pack_ranges(set);
  }
  return packed;
}
Result<std::array<RangeSet, 3>> unpack_by_state(std::string_view packed) {
  std::array<RangeSet, 3> sets;
  for (RangeSet& set : sets) {
    if (packed.size() < 4) return fail(ErrorCode::kCorrupt, "outcome ranges are cut short");
    const std::size_t bytes = std::size_t{get_u32(packed, 0)} * 8;
    packed.remove_prefix(4);
    if (packed.size() < bytes) return fail(ErrorCode::kCorrupt, "outcome ranges are cut short");
    auto ranges = unpack_ranges(packed.substr(0, bytes));
    if (!ranges) return fail(ranges.error());
    set = std::move(*ranges);
    packed.remove_prefix(bytes);
  }
  return sets;
}

std::string pack_history(const TaskHistory& history) {
  std::vector<std::uint32_t> numbers{history.index, history.attempt};
  numbers.insert(numbers.end(), history.failures.begin(), history.failures.end());
  return pack_numbers(numbers);
}
Result<TaskHistory> unpack_history(std::string_view packed) {
  auto numbers = unpack_numbers(packed);
  if (!numbers) return fail(numbers.error());
  if (numbers->size() < 2) return fail(ErrorCode::kCorrupt, "a task's history is cut short");
  TaskHistory history{(*numbers)[0], static_cast<std::uint16_t>((*numbers)[1]), {}};
  for (std::size_t i = 0; i < history.failures.size() && i + 2 < numbers->size(); ++i)
    history.failures[i] = static_cast<std::uint16_t>((*numbers)[i + 2]);
  return history;
}

std::string_view id_view(const IdBytes& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}
Result<IdBytes> id_from(std::string_view blob) {
  IdBytes id{};
  if (blob.size() != id.size())
    return fail(ErrorCode::kCorrupt, "an id has {} bytes, expected {}", blob.size(), id.size());
  std::memcpy(id.data(), blob.data(), id.size());
  return id;
}

}  // namespace farcall::relay
