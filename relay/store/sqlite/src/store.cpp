#include "relay/store/sqlite/store.h"

#include <sys/stat.h>

#include <optional>
#include <unordered_map>

#include "base/files.h"
#include "base/keys.h"
#include "base/log.h"
#include "schema.h"
#include "wire/codec.h"

namespace farcall::relay {

namespace {

constexpr const char* kPutOutcomes =
    "INSERT INTO outcomes (submission, seq, by_state, outcomes, data) VALUES (?,?,?,?,?)";

class SqliteStore final : public Store {
 public:
  SqliteStore(sqlite::Database database, std::string generation)
      : database_(std::move(database)), generation_(std::move(generation)) {}

  Result<LoadedState> load() override;
  Result<void> commit(const std::vector<Write>& writes) override;
  Result<Bytes> load_chunk(SubmissionId submission, std::uint32_t first) override;
  Result<LoadedRows> load_rows(SubmissionId submission, const RangeSet& wanted,
                               std::uint64_t after_seq, std::uint64_t bytes_max) override;
  Result<std::uint64_t> count_aside() override;

 private:
  Result<sqlite::Statement*> statement(const char* sql);
  template <class Row>
  Result<void> each(const char* sql, Row&& row);
  Result<void> load_admin(LoadedState& state);
  Result<void> load_submissions(LoadedState& state);

  Result<void> apply(const PutUserKey& w);
  Result<void> apply(const PutInvitation& w);
  Result<void> apply(const DropInvitation& w);
  Result<void> apply(const PutEndpoint& w);
  Result<void> apply(const DropEndpoint& w);
  Result<void> apply(const PutFunction& w);
  Result<void> apply(const DropFunction& w);
  Result<void> apply(const PutSubmission& w);
  Result<void> apply(const PutChunk& w);
  Result<void> apply(const PutOutcomes& w);
  Result<void> apply(const PutHistories& w);
  Result<void> apply(const PutBlobs& w);
  Result<void> apply(const PutAside& w);
  Result<void> apply(const DropSubmission& w);
  Result<void> apply(const DropTombstone& w);

  sqlite::Database database_;
  std::string generation_;
  // Keyed by the address of the literal: prepared once, used for the life of the store.
  std::unordered_map<const char*, std::unique_ptr<sqlite::Statement>> statements_;
};

Result<sqlite::Statement*> SqliteStore::statement(const char* sql) {
  auto& slot = statements_[sql];
  if (!slot) {
    auto prepared = database_.prepare(sql);
    if (!prepared) return fail(prepared.error());
    slot = std::make_unique<sqlite::Statement>(std::move(*prepared));
  }
  slot->reset();
  return slot.get();
}

template <class Row>
Result<void> SqliteStore::each(const char* sql, Row&& row) {
  auto s = database_.prepare(sql);
  if (!s) return fail(s.error());
  while (true) {
    auto more = s->step();
    if (!more) return fail(more.error());
    if (!*more) return {};
    if (Result<void> read = row(*s); !read)
      return fail(read.error().code, "{}: {} ({})", database_.path(), read.error().message, sql);
  }
}

template <class IdType>
IdType id_of(std::string_view blob) {
  auto id = id_from(blob);
  return id ? IdType{*id} : IdType{};
}

std::string pack_outcomes(SubmissionId submission, const std::vector<TaskOutcome>& outcomes) {
  if (outcomes.empty()) return {};
  return wire::encode(wire::TaskResults{{{submission, outcomes}}});
}

Result<void> SqliteStore::load_admin(LoadedState& state) {
  auto read = each("SELECT key, user, owner, created_ms FROM user_key",
                   [&](sqlite::Statement& s) -> Result<void> {
                     state.user_keys.push_back({std::string(s.text(0)), std::string(s.text(1)),
                                                s.integer(2) != 0, s.integer(3)});
                     return {};
                   });
  if (!read) return read;
  read = each(
      "SELECT hash, user, expires_ms FROM invitation", [&](sqlite::Statement& s) -> Result<void> {
        state.invitations.push_back({std::string(s.text(0)), std::string(s.text(1)), s.integer(2)});
        return {};
      });
  if (!read) return read;
  read = each(
      "SELECT id, user, name, key, description, epoch, instance, host, last_seen_ms FROM endpoint",
      [&](sqlite::Statement& s) -> Result<void> {
        state.endpoints.push_back({id_of<EndpointId>(s.blob(0)), std::string(s.text(1)),
                                   std::string(s.text(2)), std::string(s.text(3)),
                                   std::string(s.text(4)), static_cast<std::uint64_t>(s.integer(5)),
                                   id_of<InstanceId>(s.blob(6)), std::string(s.text(7)),
                                   s.integer(8)});
        return {};
      });
  if (!read) return read;
  read = each("SELECT user, record, created_ms, body FROM function",
              [&](sqlite::Statement& s) -> Result<void> {
                auto record = wire::decode<FunctionRecord>(Bytes::copy_of(s.blob(1)));
                if (!record) return fail(record.error());
                state.functions.push_back({std::string(s.text(0)), std::move(*record),
                                           Bytes::copy_of(s.blob(3)), s.integer(2)});
                return {};
              });
  if (!read) return read;
  return each("SELECT submission, user, until_ms FROM tombstone",
              [&](sqlite::Statement& s) -> Result<void> {
                state.tombstones.push_back(
                    {id_of<SubmissionId>(s.blob(0)), std::string(s.text(1)), s.integer(2)});
                return {};
              });
}

Result<void> SqliteStore::load_submissions(LoadedState& state) {
  std::unordered_map<SubmissionId, std::size_t> places;
  auto find = [&](std::string_view blob) -> LoadedSubmission* {
    auto found = places.find(id_of<SubmissionId>(blob));
    return found == places.end() ? nullptr : &state.submissions[found->second];
  };
  auto read = each(
      "SELECT header, received_ms, sealed, count, aborted, finished_ms, collected_ms, "
      "cancel_wished, collected FROM submission",
      [&](sqlite::Statement& s) -> Result<void> {
        auto header = wire::decode<SubmissionHeader>(Bytes::copy_of(s.blob(0)));
        auto wished = unpack_ranges(s.blob(7));
        auto collected = unpack_ranges(s.blob(8));
        if (!header) return fail(header.error());
        if (!wished) return fail(wished.error());
        if (!collected) return fail(collected.error());
        places[header->submission] = state.submissions.size();
        LoadedSubmission loaded;
        loaded.record = {std::move(*header),   s.integer(1),
                         s.integer(2) != 0,    static_cast<std::uint32_t>(s.integer(3)),
                         s.integer(4) != 0,    s.integer(5),
                         s.integer(6),         std::move(*wished),
                         std::move(*collected)};
        state.submissions.push_back(std::move(loaded));
        return {};
      });
  if (!read) return read;
  read = each("SELECT submission, first, sizes, hash FROM chunk ORDER BY submission, first",
              [&](sqlite::Statement& s) -> Result<void> {
                auto sizes = unpack_numbers(s.blob(2));
                auto hash = id_from(s.blob(3));
                if (!sizes) return fail(sizes.error());
                if (!hash) return fail(hash.error());
                if (auto* loaded = find(s.blob(0)))
                  loaded->chunks.push_back(
                      {static_cast<std::uint32_t>(s.integer(1)), std::move(*sizes), *hash});
                return {};
              });
  if (!read) return read;
  read = each("SELECT submission, seq, by_state FROM outcomes ORDER BY submission, seq",
              [&](sqlite::Statement& s) -> Result<void> {
                auto sets = unpack_by_state(s.blob(2));
                if (!sets) return fail(sets.error());
                if (auto* loaded = find(s.blob(0))) {
                  for (std::size_t i = 0; i < 3; ++i) loaded->by_state[i].insert((*sets)[i]);
                  loaded->last_seq = static_cast<std::uint64_t>(s.integer(1));
                }
                return {};
              });
  if (!read) return read;
  read = each("SELECT submission, hash, size FROM blob_use ORDER BY submission, hash",
              [&](sqlite::Statement& s) -> Result<void> {
                if (auto* loaded = find(s.blob(0)))
                  loaded->blobs.push_back(
                      {std::string(s.text(1)), static_cast<std::uint64_t>(s.integer(2))});
                return {};
              });
  if (!read) return read;
  return each("SELECT submission, history FROM history ORDER BY submission, task",
              [&](sqlite::Statement& s) -> Result<void> {
                auto history = unpack_history(s.blob(1));
                if (!history) return fail(history.error());
                if (auto* loaded = find(s.blob(0))) loaded->histories.push_back(*history);
                return {};
              });
}

Result<LoadedState> SqliteStore::load() {
  LoadedState state;
  state.generation = generation_;
  if (auto read = load_admin(state); !read) return fail(read.error());
  if (auto read = load_submissions(state); !read) return fail(read.error());
  return state;
}

Result<void> SqliteStore::commit(const std::vector<Write>& writes) {
  auto transaction = sqlite::Transaction::begin(database_);
  if (!transaction) return fail(transaction.error());
  for (const Write& write : writes) {
    Result<void> done = std::visit([this](const auto& w) { return apply(w); }, write);
    if (!done) return done;
  }
  return transaction->commit();
}

Result<Bytes> SqliteStore::load_chunk(SubmissionId submission, std::uint32_t first) {
  auto s = statement("SELECT data FROM chunk WHERE submission = ? AND first = ?");
  if (!s) return fail(s.error());
  (*s)->bind_blob(1, id_view(submission.bytes)).bind(2, std::int64_t{first});
  auto row = (*s)->step();
  if (!row) return fail(row.error());
  if (!*row)
    return fail(ErrorCode::kNotFound, "{}: submission {} has no chunk at {}", database_.path(),
                submission.string(), first);
  Bytes data = Bytes::copy_of((*s)->blob(0));
  (*s)->reset();
  return data;
}

Result<LoadedRows> SqliteStore::load_rows(SubmissionId submission, const RangeSet& wanted,
                                          std::uint64_t after_seq, std::uint64_t bytes_max) {
  auto s = statement(
      "SELECT seq, by_state, outcomes, data FROM outcomes WHERE submission = ? AND seq > ? "
      "ORDER BY seq");
  if (!s) return fail(s.error());
  (*s)->bind_blob(1, id_view(submission.bytes)).bind(2, static_cast<std::int64_t>(after_seq));
  LoadedRows loaded;
  loaded.scanned_to = after_seq;
  std::uint64_t bytes = 0;
  while (bytes < bytes_max) {
    auto more = (*s)->step();
    if (!more) return fail(more.error());
    if (!*more) break;
    loaded.scanned_to = static_cast<std::uint64_t>((*s)->integer(0));
    auto sets = unpack_by_state((*s)->blob(1));
    if (!sets) return fail(sets.error());
    bool any = false;
    for (const RangeSet& set : *sets) any |= !set.intersection(wanted).empty();
    if (!any) continue;
    auto row = std::make_shared<OutcomeRow>();
    row->submission = submission;
    row->seq = loaded.scanned_to;
    row->by_state = std::move(*sets);
    if (std::string_view packed = (*s)->blob(2); !packed.empty()) {
      auto outcomes = wire::decode<wire::TaskResults>(Bytes::copy_of(packed));
      if (!outcomes) return fail(outcomes.error());
      if (!outcomes->results.empty()) row->outcomes = std::move(outcomes->results[0].outcomes);
    }
    row->data = Bytes::copy_of((*s)->blob(3));
    bytes += row->data.size() + 1;
    loaded.rows.push_back(std::move(row));
  }
  (*s)->reset();
  return loaded;
}

Result<std::uint64_t> SqliteStore::count_aside() {
  std::uint64_t count = 0;
  auto read = each("SELECT COALESCE(SUM(tasks), 0) FROM aside", [&](sqlite::Statement& s) {
    count = static_cast<std::uint64_t>(s.integer(0));
    return Result<void>();
  });
  if (!read) return fail(read.error());
  return count;
}

Result<void> SqliteStore::apply(const PutUserKey& w) {
  auto s = statement("INSERT OR REPLACE INTO user_key VALUES (?,?,?,?)");
  if (!s) return fail(s.error());
  return (*s)
      ->bind(1, w.record.key)
      .bind(2, w.record.user)
      .bind(3, std::int64_t{w.record.owner})
      .bind(4, w.record.created_ms)
      .run();
}
Result<void> SqliteStore::apply(const PutInvitation& w) {
  auto s = statement("INSERT OR REPLACE INTO invitation VALUES (?,?,?)");
  if (!s) return fail(s.error());
  return (*s)->bind(1, w.record.hash).bind(2, w.record.user).bind(3, w.record.expires_ms).run();
}
Result<void> SqliteStore::apply(const DropInvitation& w) {
  auto s = statement("DELETE FROM invitation WHERE hash = ?");
  if (!s) return fail(s.error());
  return (*s)->bind(1, w.hash).run();
}
Result<void> SqliteStore::apply(const PutEndpoint& w) {
  auto s = statement("INSERT OR REPLACE INTO endpoint VALUES (?,?,?,?,?,?,?,?,?)");
  if (!s) return fail(s.error());
  const EndpointRecord& e = w.record;
  return (*s)
      ->bind_blob(1, id_view(e.id.bytes))
      .bind(2, e.user)
      .bind(3, e.name)
      .bind(4, e.key)
      .bind(5, e.description)
      .bind(6, static_cast<std::int64_t>(e.epoch))
      .bind_blob(7, id_view(e.instance.bytes))
      .bind(8, e.host)
      .bind(9, e.last_seen_ms)
      .run();
}
Result<void> SqliteStore::apply(const DropEndpoint& w) {
  auto s = statement("DELETE FROM endpoint WHERE id = ?");
  if (!s) return fail(s.error());
  return (*s)->bind_blob(1, id_view(w.id.bytes)).run();
}
Result<void> SqliteStore::apply(const PutFunction& w) {
  auto s = statement("INSERT OR REPLACE INTO function VALUES (?,?,?,?,?)");
  if (!s) return fail(s.error());
  const std::string record = wire::encode(w.record.record);
  return (*s)
      ->bind(1, w.record.user)
      .bind_blob(2, id_view(w.record.record.id.bytes))
      .bind_blob(3, record)
      .bind(4, w.record.created_ms)
      .bind_blob(5, w.record.body.view())
      .run();
}
Result<void> SqliteStore::apply(const DropFunction& w) {
  auto s = statement("DELETE FROM function WHERE user = ? AND id = ?");
  if (!s) return fail(s.error());
  return (*s)->bind(1, w.user).bind_blob(2, id_view(w.id.bytes)).run();
}
Result<void> SqliteStore::apply(const PutSubmission& w) {
  auto s = statement("INSERT OR REPLACE INTO submission VALUES (?,?,?,?,?,?,?,?,?,?)");
  if (!s) return fail(s.error());
  const SubmissionRecord& r = w.record;
  const std::string header = wire::encode(r.header);
  const std::string wished = pack_ranges(r.cancel_wished);
  const std::string collected = pack_ranges(r.collected);
  return (*s)
      ->bind_blob(1, id_view(r.header.submission.bytes))
      .bind_blob(2, header)
      .bind(3, r.received_ms)
      .bind(4, std::int64_t{r.sealed})
      .bind(5, std::int64_t{r.count})
      .bind(6, std::int64_t{r.aborted})
      .bind(7, r.finished_ms)
      .bind(8, r.collected_ms)
      .bind_blob(9, wished)
      .bind_blob(10, collected)
      .run();
}
Result<void> SqliteStore::apply(const PutChunk& w) {
  auto s = statement("INSERT INTO chunk VALUES (?,?,?,?,?)");
  if (!s) return fail(s.error());
  const std::string sizes = pack_numbers(w.chunk.sizes);
  return (*s)
      ->bind_blob(1, id_view(w.submission.bytes))
      .bind(2, std::int64_t{w.chunk.first})
      .bind_blob(3, sizes)
      .bind_blob(4, id_view(w.chunk.hash))
      .bind_blob(5, w.data.view())
      .run();
}
Result<void> SqliteStore::apply(const PutOutcomes& w) {
  auto s = statement(kPutOutcomes);
  if (!s) return fail(s.error());
  const std::string sets = pack_by_state(w.row->by_state);
  const std::string outcomes = pack_outcomes(w.row->submission, w.row->outcomes);
  return (*s)
      ->bind_blob(1, id_view(w.row->submission.bytes))
      .bind(2, static_cast<std::int64_t>(w.row->seq))
      .bind_blob(3, sets)
      .bind_blob(4, outcomes)
      .bind_blob(5, w.row->data.view())
      .run();
}
Result<void> SqliteStore::apply(const PutHistories& w) {
  for (const TaskHistory& history : w.histories) {
    auto s = statement("INSERT OR REPLACE INTO history VALUES (?,?,?)");
    if (!s) return fail(s.error());
    const std::string packed = pack_history(history);
    auto done = (*s)->bind_blob(1, id_view(w.submission.bytes))
                    .bind(2, std::int64_t{history.index})
                    .bind_blob(3, packed)
                    .run();
    if (!done) return done;
  }
  return {};
}
Result<void> SqliteStore::apply(const PutBlobs& w) {
  for (const BlobUse& blob : w.blobs) {
    auto s = statement("INSERT OR REPLACE INTO blob_use VALUES (?,?,?)");
    if (!s) return fail(s.error());
    auto done = (*s)->bind_blob(1, id_view(w.submission.bytes))
                    .bind(2, blob.hash)
                    .bind(3, static_cast<std::int64_t>(blob.size))
                    .run();
    if (!done) return done;
  }
  return {};
}
Result<void> SqliteStore::apply(const PutAside& w) {
  auto s = statement("INSERT INTO aside VALUES (?,?,?,?,?,?)");
  if (!s) return fail(s.error());
  const std::string outcomes = pack_outcomes(w.submission, w.outcomes);
  return (*s)
      ->bind_blob(1, id_view(w.endpoint.bytes))
      .bind_blob(2, id_view(w.submission.bytes))
      .bind(3, w.received_ms)
      .bind(4, static_cast<std::int64_t>(w.outcomes.size()))
      .bind_blob(5, outcomes)
      .bind_blob(6, w.data.view())
      .run();
}
Result<void> SqliteStore::apply(const DropSubmission& w) {
  for (const char* sql :
       {"DELETE FROM submission WHERE id = ?", "DELETE FROM chunk WHERE submission = ?",
        "DELETE FROM outcomes WHERE submission = ?", "DELETE FROM history WHERE submission = ?",
        "DELETE FROM blob_use WHERE submission = ?"}) {
    auto s = database_.prepare(sql);
    if (!s) return fail(s.error());
    if (auto done = s->bind_blob(1, id_view(w.tombstone.submission.bytes)).run(); !done)
      return done;
  }
  auto s = statement("INSERT OR REPLACE INTO tombstone VALUES (?,?,?)");
  if (!s) return fail(s.error());
  return (*s)
      ->bind_blob(1, id_view(w.tombstone.submission.bytes))
      .bind(2, w.tombstone.user)
      .bind(3, w.tombstone.until_ms)
      .run();
}
Result<void> SqliteStore::apply(const DropTombstone& w) {
  auto s = statement("DELETE FROM tombstone WHERE submission = ?");
  if (!s) return fail(s.error());
  return (*s)->bind_blob(1, id_view(w.submission.bytes)).run();
}

Result<std::string> meta(sqlite::Database& database, const char* name, const std::string& missing) {
  auto s = database.prepare("SELECT value FROM meta WHERE name = ?");
  if (!s) return fail(s.error());
  s->bind(1, name);
  auto row = s->step();
  if (!row) return fail(row.error());
  return *row ? std::string(s->text(0)) : missing;
}
Result<void> set_meta(sqlite::Database& database, const char* name, const std::string& value) {
  auto s = database.prepare("INSERT OR REPLACE INTO meta VALUES (?,?)");
  if (!s) return fail(s.error());
  return s->bind(1, name).bind(2, value).run();
}

// "instance:number". The witness file says which file was opened last and how many times: another
// inode or another count means that an older copy has been put in its place.
Result<std::string> settle_generation(sqlite::Database& database,
                                      const std::filesystem::path& path) {
  const std::filesystem::path witness = path.string() + ".opened";
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0)
    return fail(ErrorCode::kIo, "{}: cannot stat it: {}", path.string(), std::strerror(errno));
  auto opened = meta(database, "opened", "0");
  auto instance = meta(database, "instance", random_token(12));
  auto restored = meta(database, "restored", "0");
  for (const auto* value : {&opened, &instance, &restored})
    if (!*value) return fail(value->error());
  auto text = [&](std::uint64_t count) { return fmt::format("{} {}\n", count, status.st_ino); };
  const std::uint64_t before = std::stoull(*opened);
  std::uint64_t generation = std::stoull(*restored);
  const std::string seen = read_file(witness).value_or("");
  // The witness is written last, so after a crash in between it is one behind; a copy that was put
  // in place of what was opened since finds it ahead.
  const bool behind = before > 0 && seen == (before == 1 ? "" : text(before - 1));
  if (before > 0 && seen != text(before) && !behind) {
    ++generation;
    log_warn("{} was restored from a copy: generation {}", path.string(), generation + 1);
  }
  auto transaction = sqlite::Transaction::begin(database);
  if (!transaction) return fail(transaction.error());
  for (auto& [name, value] :
       {std::pair<const char*, std::string>{"opened", fmt::format("{}", before + 1)},
        {"instance", *instance},
        {"restored", fmt::format("{}", generation)}})
    if (auto done = set_meta(database, name, value); !done) return fail(done.error());
  if (auto done = transaction->commit(); !done) return fail(done.error());
  if (auto done = write_file(witness, text(before + 1), 0600); !done) return fail(done.error());
  return fmt::format("{}:{}", *instance, generation + 1);
}

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& path) {
  sqlite::Options options;
  options.exclusive = true;
  options.busy_timeout_ms = 500;
  auto database = sqlite::Database::open(path, options);
  if (!database && database.error().code == ErrorCode::kBusy)
    return fail(ErrorCode::kBusy,
                "{} is held by another farcall-relay: stop that one first, or give this one "
                "another --home",
                path.string());
  if (!database) return fail(database.error());
  if (auto ready = prepare_schema(*database); !ready) return fail(ready.error());
  auto generation = settle_generation(*database, path);
  if (!generation) return fail(generation.error());
  return std::make_unique<SqliteStore>(std::move(*database), std::move(*generation));
}

}  // namespace farcall::relay
