// SQLite with errors as values. One Database is used by one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

struct sqlite3;
struct sqlite3_stmt;

namespace farcall::sqlite {

struct Options {
  bool exclusive = false;  // hold the file for ourselves; kBusy when another process has it
  int busy_timeout_ms = 5000;
};

// A prepared statement. Bind (from 1), step until false, read columns (from 0), reset, again.
class Statement {
 public:
  Statement(Statement&&) noexcept;
  Statement& operator=(Statement&&) noexcept;
  ~Statement();

  Statement& bind(int position, std::int64_t value);
  Statement& bind(int position, std::string_view text);
  // The bytes must live until the next reset().
  Statement& bind_blob(int position, std::string_view bytes);
  Statement& bind_null(int position);
  // True: a row is there. False: done.
  Result<bool> step();
  // step() to the end, for statements without rows; then reset().
  Result<void> run();
  void reset();

  std::int64_t integer(int column) const;
  // Valid until the next step() or reset().
  std::string_view text(int column) const;
  std::string_view blob(int column) const;
  bool is_null(int column) const;

 private:
  friend class Database;
  Statement(sqlite3* database, sqlite3_stmt* statement, std::string path)
      : database_(database), statement_(statement), path_(std::move(path)) {}
  sqlite3* database_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
  std::string path_;
};

class Database {
 public:
  // Made when it is not there; WAL, foreign keys on, synchronous=FULL.
  static Result<Database> open(const std::filesystem::path& path, const Options& options = {});
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;
  ~Database();

  // One or more statements without parameters or rows.
  Result<void> execute(const std::string& sql);
  Result<Statement> prepare(const std::string& sql);
  // FULL: a commit survives the loss of power. Otherwise NORMAL: it survives the process only.
  // Not inside a transaction.
  Result<void> set_synchronous(bool full);
  // PRAGMA user_version: ours is the version of the schema.
  Result<int> schema_version();
  Result<void> set_schema_version(int version);
  std::int64_t last_row_id() const;
  std::int64_t changes() const;
  const std::string& path() const { return path_; }

 private:
  Database(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}
  sqlite3* database_ = nullptr;
  std::string path_;
};

// BEGIN IMMEDIATE … COMMIT; rolled back when it goes out of scope without a commit.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<void> commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace farcall::sqlite
