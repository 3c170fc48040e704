#include "relay/store/sqlite_store.h"

#include "base/keys.h"
#include "sqlite/database.h"
#include "wire/codec.h"

namespace farcall::relay {

namespace {

using sqlite::Database;
using sqlite::Statement;

constexpr int kSchemaVersion = 1;

// Ids are 16-byte blobs; headers, outcomes and histories are packed as on the wire. A row of
// `outcomes` holds what was recorded together, not one task: a million tasks are a few thousand rows.
constexpr char kSchema[] = R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE users (key TEXT PRIMARY KEY, user TEXT NOT NULL);
CREATE TABLE invitations (token_hash TEXT PRIMARY KEY, user TEXT NOT NULL, expires_ms INTEGER NOT NULL);
CREATE TABLE endpoints (id BLOB PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
  description TEXT NOT NULL, created_ms INTEGER NOT NULL, instance BLOB NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE functions (owner TEXT NOT NULL, id BLOB NOT NULL, record BLOB NOT NULL, body BLOB NOT NULL,
  created_ms INTEGER NOT NULL, PRIMARY KEY (id, owner)) WITHOUT ROWID;
CREATE TABLE submissions (id BLOB PRIMARY KEY, header BLOB NOT NULL, sealed INTEGER NOT NULL, count INTEGER NOT NULL,
  cancel_wished BLOB NOT NULL, collected BLOB NOT NULL, changed_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (submission BLOB NOT NULL, first INTEGER NOT NULL, meta BLOB NOT NULL, hash TEXT NOT NULL,
  data BLOB NOT NULL, UNIQUE (submission, first));
CREATE TABLE outcomes (id INTEGER PRIMARY KEY, submission BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  outcomes BLOB NOT NULL, data BLOB NOT NULL);
CREATE INDEX outcomes_by_submission ON outcomes (submission, first);
CREATE TABLE histories (submission BLOB NOT NULL, task INTEGER NOT NULL, history BLOB NOT NULL,
  PRIMARY KEY (submission, task)) WITHOUT ROWID;
CREATE TABLE tombstones (submission BLOB PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
)sql";

std::string_view view(const IdBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
template <class IdType>
IdType id_from(std::string_view blob) {
  IdType id;
  if (blob.size() == id.bytes.size()) std::memcpy(id.bytes.data(), blob.data(), blob.size());
  return id;
}
// A RangeSet packs as the ranges of a nameless submission.
std::string pack(const RangeSet& ranges) {
  return wire::encode(wire::SubmissionRanges{{}, ranges});
}

template <class T>
Result<T> unpack(std::string_view blob, const char* what, const std::string& path) {
  auto value = wire::decode<T>(Bytes::copy_of(blob));
  if (!value) return fail(ErrorCode::kCorrupt, "{}: a {} cannot be read: {}", path, what, value.error().message);
  return value;
}

class SqliteStore final : public Store {
 public:
  explicit SqliteStore(Database database) : database_(std::move(database)) {}

  Result<void> prepare() {
    struct Item {
      std::optional<Statement>* statement;
      const char* sql;
    };
    for (const Item& item : std::initializer_list<Item>{
             {&put_user_, "INSERT OR REPLACE INTO users VALUES (?,?)"},
             {&put_invitation_, "INSERT OR REPLACE INTO invitations VALUES (?,?,?)"},
             {&drop_invitation_, "DELETE FROM invitations WHERE token_hash=?"},
             {&put_endpoint_, "INSERT OR REPLACE INTO endpoints VALUES (?,?,?,?,?,?,?,?)"},
             {&drop_endpoint_, "DELETE FROM endpoints WHERE id=?"},
             {&put_function_, "INSERT OR IGNORE INTO functions VALUES (?,?,?,?,?)"},
             {&drop_function_, "DELETE FROM functions WHERE owner=? AND id=?"},
             {&put_submission_, "INSERT OR REPLACE INTO submissions VALUES (?,?,?,?,?,?,?)"},
             {&put_chunk_, "INSERT INTO chunks VALUES (?,?,?,?,?)"},
             {&put_outcomes_, "INSERT INTO outcomes (submission,first,last,outcomes,data) VALUES (?,?,?,?,?)"},
             {&put_history_, "INSERT OR REPLACE INTO histories VALUES (?,?,?)"},
             {&put_tombstone_, "INSERT OR REPLACE INTO tombstones VALUES (?,?)"},
             {&get_body_, "SELECT body FROM functions WHERE id=?"},
             {&get_chunk_, "SELECT data, hash, meta FROM chunks WHERE submission=? AND first=?"},
             {&get_outcomes_,
              "SELECT outcomes, data FROM outcomes WHERE submission=? AND first<? AND last>? ORDER BY id"}}) {
      auto prepared = database_.prepare(item.sql);
      if (!prepared) return fail(prepared.error());
      item.statement->emplace(std::move(*prepared));
    }
    return {};
  }

  Result<Contents> load() override;
  Result<void> apply(const std::vector<Write>& writes) override {
    auto transaction = sqlite::Transaction::begin(database_);
    if (!transaction) return fail(transaction.error());
    for (const Write& write : writes) {
      auto done = std::visit([this](const auto& row) { return put(row); }, write);
      if (!done) return done;
    }
    return transaction->commit();
  }
  Result<Bytes> read_function_body(const FunctionId& id) override {
    auto row = get_body_->bind_blob(1, view(id.bytes)).step();
    if (!row) return fail(row.error());
    Bytes body = *row ? Bytes::copy_of(get_body_->blob(0)) : Bytes();
    get_body_->reset();
    if (!*row) return fail(ErrorCode::kNotFound, "function {} is not in {}", id.string(), database_.path());
    return body;
  }
  Result<Bytes> read_chunk(const SubmissionId& submission, std::uint32_t first) override;
  Result<std::vector<OutcomesRow>> read_outcomes(const SubmissionId& submission, const RangeSet& wanted,
                                                 std::uint64_t bytes_max) override;

 private:
  Result<void> put(const UserRow& r) { return put_user_->bind(1, r.key).bind(2, r.user).run(); }
  Result<void> put(const InvitationRow& r) {
    return put_invitation_->bind(1, r.token_hash).bind(2, r.user).bind(3, r.expires_ms).run();
  }
  Result<void> put(const UsedInvitation& r) { return drop_invitation_->bind(1, r.token_hash).run(); }
  Result<void> put(const EndpointRow& r) {
    return put_endpoint_->bind_blob(1, view(r.id.bytes))
        .bind(2, r.owner)
        .bind(3, r.name)
        .bind(4, r.key)
        .bind(5, r.description)
        .bind(6, r.created_ms)
        .bind_blob(7, view(r.instance.bytes))
        .bind(8, static_cast<std::int64_t>(r.epoch))
        .run();
  }
  Result<void> put(const DeletedEndpoint& r) { return drop_endpoint_->bind_blob(1, view(r.id.bytes)).run(); }
  Result<void> put(const FunctionRow& r) {
    const std::string record = wire::encode(r.function);
    return put_function_->bind(1, r.owner)
        .bind_blob(2, view(r.function.id.bytes))
        .bind_blob(3, record)
        .bind_blob(4, r.body.view())
        .bind(5, r.created_ms)
        .run();
  }
  Result<void> put(const DeletedFunction& r) {
    return drop_function_->bind(1, r.owner).bind_blob(2, view(r.id.bytes)).run();
  }
  Result<void> put(const SubmissionRow& r) {
    const std::string header = wire::encode(r.header), cancel = pack(r.cancel_wished), collected = pack(r.collected);
    return put_submission_->bind_blob(1, view(r.header.submission.bytes))
        .bind_blob(2, header)
        .bind(3, std::int64_t{r.sealed})
        .bind(4, std::int64_t{r.count})
        .bind_blob(5, cancel)
        .bind_blob(6, collected)
        .bind(7, r.changed_ms)
        .run();
  }
  Result<void> put(const ChunkRow& r) {
    const std::string meta = wire::encode(r.chunk);
    return put_chunk_->bind_blob(1, view(r.submission.bytes))
        .bind(2, std::int64_t{r.chunk.first})
        .bind_blob(3, meta)
        .bind(4, r.hash)
        .bind_blob(5, r.data.view())
        .run();
  }
  Result<void> put(const OutcomesRow& r) {
    std::uint32_t first = UINT32_MAX, last = 0;
    for (const TaskOutcome& outcome : r.outcomes) {
      first = std::min(first, outcome.index);
      last = std::max(last, outcome.index + 1);
    }
    const std::string packed = wire::encode(wire::Results{0, {{r.submission, r.outcomes}}});
    return put_outcomes_->bind_blob(1, view(r.submission.bytes))
        .bind(2, std::int64_t{first})
        .bind(3, std::int64_t{last})
        .bind_blob(4, packed)
        .bind_blob(5, r.data.view())
        .run();
  }
  Result<void> put(const HistoriesRow& r) {
    for (const TaskHistory& history : r.histories) {
      const std::string packed = wire::encode(history);
      auto done = put_history_->bind_blob(1, view(r.submission.bytes))
                      .bind(2, std::int64_t{history.index})
                      .bind_blob(3, packed)
                      .run();
      if (!done) return done;
    }
    return {};
  }
  Result<void> put(const PurgedSubmission& r) {
    for (const char* sql : {"DELETE FROM submissions WHERE id=?", "DELETE FROM chunks WHERE submission=?",
                            "DELETE FROM outcomes WHERE submission=?", "DELETE FROM histories WHERE submission=?"}) {
      auto statement = database_.prepare(sql);
      if (!statement) return fail(statement.error());
      if (auto done = statement->bind_blob(1, view(r.submission.bytes)).run(); !done) return done;
    }
    return put_tombstone_->bind_blob(1, view(r.submission.bytes)).bind(2, r.until_ms).run();
  }

  // Calls `each` for every row.
  template <class F>
  Result<void> rows(const char* sql, F&& each) {
    auto statement = database_.prepare(sql);
    if (!statement) return fail(statement.error());
    while (true) {
      auto row = statement->step();
      if (!row) return fail(row.error());
      if (!*row) return {};
      if (Result<void> done = each(*statement); !done) return done;
    }
  }
  Result<void> load_people(Contents& contents);
  Result<void> load_work(Contents& contents);

  Database database_;
  std::optional<Statement> put_user_, put_invitation_, drop_invitation_, put_endpoint_, drop_endpoint_, put_function_,
      drop_function_, put_submission_, put_chunk_, put_outcomes_, put_history_, put_tombstone_, get_body_, get_chunk_,
      get_outcomes_;
};

Result<void> SqliteStore::load_people(Contents& contents) {
  auto done = rows("SELECT value FROM meta WHERE name='generation'", [&](Statement& s) -> Result<void> {
    contents.generation = s.text(0);
    return {};
  });
  if (!done) return done;
  done = rows("SELECT key, user FROM users", [&](Statement& s) -> Result<void> {
    contents.users.push_back({std::string(s.text(0)), std::string(s.text(1))});
    return {};
  });
  if (!done) return done;
  done = rows("SELECT token_hash, user, expires_ms FROM invitations", [&](Statement& s) -> Result<void> {
    contents.invitations.push_back({std::string(s.text(0)), std::string(s.text(1)), s.integer(2)});
    return {};
  });
  if (!done) return done;
  done = rows("SELECT id, owner, name, key, description, created_ms, instance, epoch FROM endpoints",
              [&](Statement& s) -> Result<void> {
                contents.endpoints.push_back({id_from<EndpointId>(s.blob(0)), std::string(s.text(1)),
                                              std::string(s.text(2)), std::string(s.text(3)), std::string(s.text(4)),
                                              s.integer(5), id_from<InstanceId>(s.blob(6)),
                                              static_cast<std::uint64_t>(s.integer(7))});
                return {};
              });
  if (!done) return done;
  return rows("SELECT owner, record, length(body), created_ms FROM functions", [&](Statement& s) -> Result<void> {
    auto record = unpack<FunctionRecord>(s.blob(1), "function", database_.path());
    if (!record) return fail(record.error());
    contents.functions.push_back(
        {std::string(s.text(0)), *record, {}, static_cast<std::uint64_t>(s.integer(2)), s.integer(3)});
    return {};
  });
}

Result<void> SqliteStore::load_work(Contents& contents) {
  const std::string& path = database_.path();
  auto done = rows("SELECT header, sealed, count, cancel_wished, collected, changed_ms FROM submissions",
                   [&](Statement& s) -> Result<void> {
                     auto header = unpack<SubmissionHeader>(s.blob(0), "submission", path);
                     if (!header) return fail(header.error());
                     auto cancel = unpack<wire::SubmissionRanges>(s.blob(3), "submission", path);
                     auto collected = unpack<wire::SubmissionRanges>(s.blob(4), "submission", path);
                     if (!cancel || !collected) return fail((cancel ? collected : cancel).error());
                     contents.submissions.push_back({*header, s.integer(1) != 0,
                                                     static_cast<std::uint32_t>(s.integer(2)), cancel->ranges,
                                                     collected->ranges, s.integer(5)});
                     return {};
                   });
  if (!done) return done;
  done = rows("SELECT submission, meta, hash FROM chunks ORDER BY submission, first", [&](Statement& s) -> Result<void> {
    auto meta = unpack<wire::ChunkMeta>(s.blob(1), "chunk", path);
    if (!meta) return fail(meta.error());
    contents.chunks.push_back({id_from<SubmissionId>(s.blob(0)), *meta, std::string(s.text(2)), {}});
    return {};
  });
  if (!done) return done;
  done = rows("SELECT outcomes FROM outcomes ORDER BY id", [&](Statement& s) -> Result<void> {
    auto packed = unpack<wire::Results>(s.blob(0), "row of outcomes", path);
    if (!packed) return fail(packed.error());
    for (auto& part : packed->results) contents.outcomes.push_back({part.submission, std::move(part.outcomes), {}});
    return {};
  });
  if (!done) return done;
  done = rows("SELECT submission, history FROM histories", [&](Statement& s) -> Result<void> {
    auto history = unpack<TaskHistory>(s.blob(1), "history", path);
    if (!history) return fail(history.error());
    contents.histories.push_back({id_from<SubmissionId>(s.blob(0)), {*history}});
    return {};
  });
  if (!done) return done;
  return rows("SELECT submission, until_ms FROM tombstones", [&](Statement& s) -> Result<void> {
    contents.tombstones.push_back({id_from<SubmissionId>(s.blob(0)), s.integer(1)});
    return {};
  });
}

Result<Contents> SqliteStore::load() {
  Contents contents;
  if (auto done = load_people(contents); !done) return fail(done.error());
  if (auto done = load_work(contents); !done) return fail(done.error());
  return contents;
}

Result<Bytes> SqliteStore::read_chunk(const SubmissionId& submission, std::uint32_t first) {
  auto row = get_chunk_->bind_blob(1, view(submission.bytes)).bind(2, std::int64_t{first}).step();
  if (!row) return fail(row.error());
  if (!*row) {
    get_chunk_->reset();
    return fail(ErrorCode::kNotFound, "the arguments of {} from task {} on are not in {}", submission.string(), first,
                database_.path());
  }
  Bytes data = Bytes::copy_of(get_chunk_->blob(0));
  const std::string hash(get_chunk_->text(1));
  auto meta = unpack<wire::ChunkMeta>(get_chunk_->blob(2), "chunk", database_.path());
  get_chunk_->reset();
  if (!meta) return fail(meta.error());
  if (chunk_hash(*meta, data) != hash)
    return fail(ErrorCode::kCorrupt, "{}: the arguments of {} from task {} on are not what was written",
                database_.path(), submission.string(), first);
  return data;
}

Result<std::vector<OutcomesRow>> SqliteStore::read_outcomes(const SubmissionId& submission, const RangeSet& wanted,
                                                            std::uint64_t bytes_max) {
  std::vector<OutcomesRow> found;
  if (wanted.empty()) return found;
  get_outcomes_->bind_blob(1, view(submission.bytes))
      .bind(2, std::int64_t{wanted.back_end()})
      .bind(3, std::int64_t{wanted.front()});
  std::uint64_t bytes = 0;
  Result<void> done;
  while (bytes < bytes_max) {
    auto row = get_outcomes_->step();
    if (!row || !*row) {
      if (!row) done = fail(row.error());
      break;
    }
    auto packed = unpack<wire::Results>(get_outcomes_->blob(0), "row of outcomes", database_.path());
    if (!packed || packed->results.size() != 1) {
      done = packed ? fail(ErrorCode::kCorrupt, "{}: a row of outcomes is empty", database_.path())
                    : fail(packed.error());
      break;
    }
    OutcomesRow whole{submission, std::move(packed->results[0].outcomes), Bytes::copy_of(get_outcomes_->blob(1))};
    OutcomesRow part = select_outcomes(whole, wanted);
    if (part.outcomes.empty()) continue;
    bytes += part.data.size() + 64 * part.outcomes.size();
    found.push_back(std::move(part));
  }
  get_outcomes_->reset();
  if (!done) return fail(done.error());
  return found;
}

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& path) {
  auto database = Database::open(path, {.exclusive = true});
  if (!database) {
    if (database.error().code == ErrorCode::kBusy)
      return fail(ErrorCode::kBusy, "{} is in use by another relay: `farcall relay status` names it", path.string());
    return fail(database.error());
  }
  auto version = database->schema_version();
  if (!version) return fail(version.error());
  if (*version > kSchemaVersion)
    return fail(ErrorCode::kVersion,
                "{} was written by a newer farcall: its schema is {}, this program knows up to {}; use the newer one",
                path.string(), *version, kSchemaVersion);
  if (*version == 0) {
    auto transaction = sqlite::Transaction::begin(*database);
    if (!transaction) return fail(transaction.error());
    if (auto done = database->execute(kSchema); !done) return fail(done.error());
    auto generation = database->prepare("INSERT INTO meta VALUES ('generation', ?)");
    if (!generation) return fail(generation.error());
    if (auto done = generation->bind(1, "1-" + random_token(6)).run(); !done) return fail(done.error());
    if (auto done = database->set_schema_version(kSchemaVersion); !done) return fail(done.error());
    if (auto done = transaction->commit(); !done) return fail(done.error());
  }
  auto store = std::make_unique<SqliteStore>(std::move(*database));
  if (auto done = store->prepare(); !done) return fail(done.error());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace farcall::relay
