#include "sqlite/database.h"

#include <sqlite3.h>

#include <utility>

namespace farcall::sqlite {

namespace {
tl::unexpected<Error> failure(sqlite3* database, const std::string& path, const std::string& what) {
  const int code = sqlite3_errcode(database);
  ErrorCode ours = ErrorCode::kIo;
  if (code == SQLITE_BUSY || code == SQLITE_LOCKED) ours = ErrorCode::kBusy;
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) ours = ErrorCode::kCorrupt;
  return fail(ours, "database {}: {}: {}", path, what, sqlite3_errmsg(database));
}
}  // namespace

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      path_(std::move(other.path_)) {}
Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(database_, other.database_);
  std::swap(statement_, other.statement_);
  std::swap(path_, other.path_);
  return *this;
}
Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(int position, std::int64_t value) {
  FARCALL_CHECK(sqlite3_bind_int64(statement_, position, value) == SQLITE_OK, "bind");
  return *this;
}
Statement& Statement::bind(int position, std::string_view text) {
  FARCALL_CHECK(sqlite3_bind_text64(statement_, position, text.data() ? text.data() : "",
                                    text.size(), SQLITE_TRANSIENT, SQLITE_UTF8) == SQLITE_OK,
                "bind");
  return *this;
}
Statement& Statement::bind_blob(int position, std::string_view bytes) {
  FARCALL_CHECK(sqlite3_bind_blob64(statement_, position, bytes.data() ? bytes.data() : "",
                                    bytes.size(), SQLITE_STATIC) == SQLITE_OK,
                "bind");
  return *this;
}
Statement& Statement::bind_null(int position) {
  FARCALL_CHECK(sqlite3_bind_null(statement_, position) == SQLITE_OK, "bind");
  return *this;
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  auto error = failure(database_, path_, sqlite3_sql(statement_));
  sqlite3_reset(statement_);
  return error;
}
Result<void> Statement::run() {
  Result<bool> row = step();
  while (row && *row) row = step();
  reset();
  if (!row) return fail(row.error());
  return {};
}
void Statement::reset() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}
std::string_view Statement::text(int column) const { return blob(column); }
std::string_view Statement::blob(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return data == nullptr ? std::string_view()
                         : std::string_view(static_cast<const char*>(data), size);
}
bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Result<Database> Database::open(const std::filesystem::path& path, const Options& options) {
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(handle, path.string());
  if (code != SQLITE_OK) return failure(handle, path.string(), "cannot open");
  sqlite3_extended_result_codes(handle, 0);
  sqlite3_busy_timeout(handle, options.exclusive ? 0 : options.busy_timeout_ms);
  std::string setup = options.exclusive ? "PRAGMA locking_mode=EXCLUSIVE;" : "";
  setup += "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;";
  // Exclusive mode takes its lock with the first write.
  if (options.exclusive) setup += "BEGIN EXCLUSIVE; COMMIT;";
  if (auto done = database.execute(setup); !done) return fail(done.error());
  return database;
}

Database::Database(Database&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)), path_(std::move(other.path_)) {}
Database& Database::operator=(Database&& other) noexcept {
  std::swap(database_, other.database_);
  std::swap(path_, other.path_);
  return *this;
}
// _v2: a statement that is still alive keeps it open until it goes as well.
Database::~Database() { sqlite3_close_v2(database_); }

Result<void> Database::execute(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
    return failure(database_, path_, sql.substr(0, 200));
  return {};
}
Result<Statement> Database::prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(database_, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement,
                         nullptr) != SQLITE_OK)
    return failure(database_, path_, sql.substr(0, 200));
  return Statement(database_, statement, path_);
}
Result<void> Database::set_synchronous(bool full) {
  return execute(full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
}
Result<int> Database::schema_version() {
  auto statement = prepare("PRAGMA user_version");
  if (!statement) return fail(statement.error());
  if (auto row = statement->step(); !row) return fail(row.error());
  return static_cast<int>(statement->integer(0));
}
Result<void> Database::set_schema_version(int version) {
  return execute("PRAGMA user_version=" + std::to_string(version));
}
std::int64_t Database::last_row_id() const { return sqlite3_last_insert_rowid(database_); }
std::int64_t Database::changes() const { return sqlite3_changes64(database_); }

Result<Transaction> Transaction::begin(Database& database) {
  if (auto begun = database.execute("BEGIN IMMEDIATE"); !begun) return fail(begun.error());
  return Transaction(database);
}
Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}
Transaction::~Transaction() {
  if (database_ != nullptr) (void)database_->execute("ROLLBACK");
}
Result<void> Transaction::commit() {
  FARCALL_CHECK(database_ != nullptr, "committed once only");
  auto done = database_->execute("COMMIT");
  if (done) database_ = nullptr;
  return done;
}

}  // namespace farcall::sqlite
