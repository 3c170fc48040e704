#include "interchange/journal/journal.h"

#include <cstring>

#include "sqlite/database.h"
#include "wire/codec.h"

namespace farcall::interchange {

namespace {

using sqlite::Database;
using sqlite::Statement;

constexpr int kSchemaVersion = 3;
// Of the functions that ran last, durations are kept.
constexpr std::int64_t kFunctionsKept = 10'000;
constexpr char kSchema[] = R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (id BLOB PRIMARY KEY, job_name TEXT NOT NULL, job_id TEXT NOT NULL, state INTEGER NOT NULL,
  ended INTEGER NOT NULL, nodes INTEGER NOT NULL, walltime_ms INTEGER NOT NULL, reason TEXT NOT NULL,
  made_ms INTEGER NOT NULL, since_ms INTEGER NOT NULL, cores INTEGER NOT NULL DEFAULT 0,
  ran_ms INTEGER NOT NULL DEFAULT 0, used_ms INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE placements (id INTEGER PRIMARY KEY, pilot BLOB NOT NULL, block BLOB NOT NULL, submission BLOB NOT NULL,
  attempt INTEGER NOT NULL, ranges BLOB NOT NULL, cores INTEGER NOT NULL);
CREATE TABLE spool (batch INTEGER PRIMARY KEY, body BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE durations (function BLOB NOT NULL UNIQUE, took_ms BLOB NOT NULL);
)sql";

constexpr char kToVersion2[] = R"sql(
ALTER TABLE blocks ADD COLUMN cores INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blocks ADD COLUMN ran_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blocks ADD COLUMN used_ms INTEGER NOT NULL DEFAULT 0;
)sql";
constexpr char kToVersion3[] =
    "CREATE TABLE durations (function BLOB NOT NULL UNIQUE, took_ms BLOB NOT NULL);";

std::string_view view(const IdBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
template <class IdType>
IdType id_from(std::string_view blob) {
  IdType id;
  if (blob.size() == id.bytes.size()) std::memcpy(id.bytes.data(), blob.data(), blob.size());
  return id;
}
}  // namespace

struct Journal::Impl {
  Database database;
  InstanceId instance;
  bool synced = true;
  std::optional<Statement> put_block, put_epoch, put_drained, put_durations, put_placement,
      drop_placement, put_spool, drop_spool;

  explicit Impl(Database d) : database(std::move(d)) {}

  Result<void> prepare() {
    struct Item {
      std::optional<Statement>* statement;
      const char* sql;
    };
    for (const Item& item : std::initializer_list<Item>{
             {&put_block, "INSERT OR REPLACE INTO blocks VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"},
             {&put_epoch, "INSERT OR REPLACE INTO meta VALUES ('epoch', ?)"},
             {&put_drained, "INSERT OR REPLACE INTO meta VALUES ('drained', ?)"},
             {&put_durations, "INSERT OR REPLACE INTO durations VALUES (?,?)"},
             {&put_placement, "INSERT OR REPLACE INTO placements VALUES (?,?,?,?,?,?,?)"},
             {&drop_placement, "DELETE FROM placements WHERE id=?"},
             {&put_spool, "INSERT OR REPLACE INTO spool VALUES (?,?,?)"},
             {&drop_spool, "DELETE FROM spool WHERE batch=?"}}) {
      auto prepared = database.prepare(item.sql);
      if (!prepared) return fail(prepared.error());
      item.statement->emplace(std::move(*prepared));
    }
    return {};
  }

  Result<void> put(const effect::SaveBlock& w) {
    const BlockRecord& b = w.block;
    return put_block->bind_blob(1, view(b.id.bytes))
        .bind(2, b.job_name)
        .bind(3, b.job_id)
        .bind(4, static_cast<std::int64_t>(b.state))
        .bind(5, static_cast<std::int64_t>(b.end))
        .bind(6, static_cast<std::int64_t>(b.nodes))
        .bind(7, static_cast<std::int64_t>(b.walltime_s * 1000))
        .bind(8, b.reason)
        .bind(9, b.made_ms)
        .bind(10, b.since_ms)
        .bind(11, std::int64_t{b.cores})
        .bind(12, b.ran_ms)
        .bind(13, static_cast<std::int64_t>(b.used_s * 1000))
        .run();
  }
  Result<void> put(const effect::SaveEpoch& w) {
    return put_epoch->bind(1, static_cast<std::int64_t>(w.epoch)).run();
  }
  Result<void> put(const effect::SaveDrained& w) {
    return put_drained->bind(1, std::int64_t{w.drained ? 1 : 0}).run();
  }
  Result<void> put(const effect::SaveDurations& w) {
    for (const DurationsRecord& each : w.functions) {
      const std::string_view times(reinterpret_cast<const char*>(each.took_ms.data()),
                                   each.took_ms.size() * sizeof(std::uint32_t));
      auto done = put_durations->bind_blob(1, view(each.function.bytes)).bind_blob(2, times).run();
      if (!done) return done;
    }
    return {};
  }
  Result<void> put(const effect::SavePlacements& w) {
    for (const PlacementRecord& p : w.placed) {
      const std::string ranges =
          wire::encode(wire::PlacedTasks{p.submission, p.ranges, p.shares, p.never});
      auto done = put_placement->bind(1, static_cast<std::int64_t>(p.id))
                      .bind_blob(2, view(p.pilot.bytes))
                      .bind_blob(3, view(p.block.bytes))
                      .bind_blob(4, view(p.submission.bytes))
                      .bind(5, std::int64_t{p.attempt})
                      .bind_blob(6, ranges)
                      .bind(7, std::int64_t{p.cores})
                      .run();
      if (!done) return done;
    }
    for (std::uint64_t id : w.dropped)
      if (auto done = drop_placement->bind(1, static_cast<std::int64_t>(id)).run(); !done)
        return done;
    return {};
  }
  Result<void> put(const effect::Spool& w) {
    return put_spool->bind(1, static_cast<std::int64_t>(w.record.batch))
        .bind_blob(2, w.record.body.view())
        .bind_blob(3, w.record.data.view())
        .run();
  }
  Result<void> put(const effect::DropSpooled& w) {
    for (std::uint64_t batch : w.batches)
      if (auto done = drop_spool->bind(1, static_cast<std::int64_t>(batch)).run(); !done)
        return done;
    return {};
  }

  Result<void> load_habits(Recovered& restored);
  Result<void> upgrade(int version) {
    auto transaction = sqlite::Transaction::begin(database);
    if (!transaction) return fail(transaction.error());
    if (version == 1)
      if (auto done = database.execute(kToVersion2); !done) return fail(done.error());
    if (auto done = database.execute(kToVersion3); !done) return fail(done.error());
    if (auto done = database.set_schema_version(kSchemaVersion); !done) return fail(done.error());
    return transaction->commit();
  }

  template <class F>
  Result<void> rows(const char* sql, F&& each) {
    auto statement = database.prepare(sql);
    if (!statement) return fail(statement.error());
    while (true) {
      auto row = statement->step();
      if (!row) return fail(row.error());
      if (!*row) return {};
      if (Result<void> done = each(*statement); !done) return done;
    }
  }
};

Result<void> Journal::Impl::load_habits(Recovered& restored) {
  auto done =
      rows("SELECT value FROM meta WHERE name='drained'", [&](Statement& s) -> Result<void> {
        restored.drained = s.integer(0) != 0;
        return {};
      });
  if (!done) return done;
  return rows("SELECT function, took_ms FROM durations ORDER BY rowid",
              [&](Statement& s) -> Result<void> {
                DurationsRecord record{id_from<FunctionId>(s.blob(0)), {}};
                const std::string_view times = s.blob(1);
                record.took_ms.resize(times.size() / sizeof(std::uint32_t));
                times.copy(reinterpret_cast<char*>(record.took_ms.data()),
                           record.took_ms.size() * sizeof(std::uint32_t));
                restored.durations.push_back(std::move(record));
                return {};
              });
}

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::~Journal() = default;
const InstanceId& Journal::instance() const { return impl_->instance; }

Result<std::unique_ptr<Journal>> Journal::open(const std::filesystem::path& path) {
  auto database = Database::open(path, {.exclusive = true});
  if (!database) return fail(database.error());
  auto version = database->schema_version();
  if (!version) return fail(version.error());
  if (*version > kSchemaVersion)
    return fail(ErrorCode::kVersion,
                "{} was written by a newer farcall: its schema is {}, this program knows up to {}; "
                "use the newer one",
                path.string(), *version, kSchemaVersion);
  auto impl = std::make_unique<Impl>(std::move(*database));
  if (*version == 0) {
    auto transaction = sqlite::Transaction::begin(impl->database);
    if (!transaction) return fail(transaction.error());
    if (auto done = impl->database.execute(kSchema); !done) return fail(done.error());
    auto put = impl->database.prepare("INSERT INTO meta VALUES ('instance', ?)");
    if (!put) return fail(put.error());
    Rng rng = Rng::from_entropy();
    const InstanceId instance = make_id<InstanceId>(read_clock().wall, rng);
    if (auto done = put->bind_blob(1, view(instance.bytes)).run(); !done) return fail(done.error());
    if (auto done = impl->database.set_schema_version(kSchemaVersion); !done)
      return fail(done.error());
    if (auto done = transaction->commit(); !done) return fail(done.error());
  }
  if (*version > 0 && *version < kSchemaVersion)
    if (auto done = impl->upgrade(*version); !done) return fail(done.error());
  auto read =
      impl->rows("SELECT value FROM meta WHERE name='instance'", [&](Statement& s) -> Result<void> {
        impl->instance = id_from<InstanceId>(s.blob(0));
        return {};
      });
  if (!read) return fail(read.error());
  if (auto done = impl->prepare(); !done) return fail(done.error());
  // Those that ran last have the highest row ids.
  if (auto done = impl->database.execute(fmt::format(
          "DELETE FROM durations WHERE rowid <= (SELECT max(rowid) - {} FROM durations)",
          kFunctionsKept));
      !done)
    return fail(done.error());
  return std::unique_ptr<Journal>(new Journal(std::move(impl)));
}

Result<Recovered> Journal::load() {
  Recovered restored;
  const std::string& path = impl_->database.path();
  auto done =
      impl_->rows("SELECT value FROM meta WHERE name='epoch'", [&](Statement& s) -> Result<void> {
        restored.epoch = static_cast<std::uint64_t>(s.integer(0));
        return {};
      });
  if (!done) return fail(done.error());
  if (done = impl_->load_habits(restored); !done) return fail(done.error());
  done = impl_->rows(
      "SELECT id, job_name, job_id, state, ended, nodes, walltime_ms, reason, made_ms, since_ms, "
      "cores, ran_ms, used_ms FROM blocks ORDER BY id",
      [&](Statement& s) -> Result<void> {
        BlockRecord b;
        b.id = id_from<BlockId>(s.blob(0));
        b.job_name = s.text(1);
        b.job_id = s.text(2);
        b.state = static_cast<BlockState>(s.integer(3));
        b.end = static_cast<BlockEnd>(s.integer(4));
        b.nodes = static_cast<int>(s.integer(5));
        b.walltime_s = static_cast<double>(s.integer(6)) / 1000;
        b.reason = s.text(7);
        b.made_ms = s.integer(8);
        b.since_ms = s.integer(9);
        b.cores = static_cast<std::uint32_t>(s.integer(10));
        b.ran_ms = s.integer(11);
        b.used_s = static_cast<double>(s.integer(12)) / 1000;
        restored.blocks.push_back(std::move(b));
        return {};
      });
  if (!done) return fail(done.error());
  done = impl_->rows(
      "SELECT id, pilot, block, submission, attempt, ranges, cores FROM placements ORDER BY id",
      [&](Statement& s) -> Result<void> {
        auto ranges = wire::decode<wire::PlacedTasks>(Bytes::copy_of(s.blob(5)));
        if (!ranges)
          return fail(ErrorCode::kCorrupt, "{}: a placement cannot be read: {}", path,
                      ranges.error().message);
        restored.placements.push_back(
            {static_cast<std::uint64_t>(s.integer(0)), id_from<PilotId>(s.blob(1)),
             id_from<BlockId>(s.blob(2)), id_from<SubmissionId>(s.blob(3)),
             static_cast<std::uint16_t>(s.integer(4)), ranges->ranges,
             static_cast<std::uint32_t>(s.integer(6)), ranges->shares, ranges->never});
        return {};
      });
  if (!done) return fail(done.error());
  done = impl_->rows(
      "SELECT batch, body, data FROM spool ORDER BY batch", [&](Statement& s) -> Result<void> {
        restored.spool.push_back({static_cast<std::uint64_t>(s.integer(0)),
                                  Bytes::copy_of(s.blob(1)), Bytes::copy_of(s.blob(2))});
        return {};
      });
  if (!done) return fail(done.error());
  return restored;
}

bool Journal::needs_sync(const JournalWrite& write) {
  return !std::holds_alternative<effect::SavePlacements>(write) &&
         !std::holds_alternative<effect::SaveDurations>(write) &&
         !std::holds_alternative<effect::DropSpooled>(write);
}

Result<void> Journal::apply(const std::vector<JournalWrite>& writes) {
  bool sync = false;
  for (const JournalWrite& write : writes) sync = sync || needs_sync(write);
  if (sync != impl_->synced) {
    if (auto done = impl_->database.set_synchronous(sync); !done) return done;
    impl_->synced = sync;
  }
  auto transaction = sqlite::Transaction::begin(impl_->database);
  if (!transaction) return fail(transaction.error());
  for (const JournalWrite& write : writes) {
    auto done = std::visit([this](const auto& w) { return impl_->put(w); }, write);
    if (!done) return done;
  }
  return transaction->commit();
}

}  // namespace farcall::interchange
