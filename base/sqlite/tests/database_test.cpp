#include "sqlite/database.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace farcall::sqlite {
namespace {

class DatabaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/farcall-sqlite-XXXXXX";
    directory = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::filesystem::path directory;
};

TEST_F(DatabaseTest, KeepsWhatWasCommittedAndNothingElse) {
  const auto path = directory / "a.db";
  {
    auto database = Database::open(path);
    ASSERT_TRUE(database) << database.error().message;
    ASSERT_TRUE(database->execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)"));
    ASSERT_TRUE(database->set_schema_version(3));
    auto insert = database->prepare("INSERT INTO t VALUES (?, ?, ?)");
    const std::string blob("a\0b", 3);
    auto kept = Transaction::begin(*database);
    ASSERT_TRUE(insert->bind(1, 7).bind(2, "seven").bind_blob(3, blob).run());
    ASSERT_TRUE(kept->commit());
    auto dropped = Transaction::begin(*database);
    ASSERT_TRUE(insert->bind(1, 8).bind(2, "eight").bind_null(3).run());
  }
  auto database = Database::open(path);
  EXPECT_EQ(*database->schema_version(), 3);
  auto select = database->prepare("SELECT id, name, data FROM t");
  ASSERT_TRUE(*select->step());
  EXPECT_EQ(select->integer(0), 7);
  EXPECT_EQ(select->text(1), "seven");
  EXPECT_EQ(select->blob(2), std::string_view("a\0b", 3));
  EXPECT_FALSE(*select->step());
}

TEST_F(DatabaseTest, NamesFileAndReason) {
  auto database = Database::open(directory / "none" / "a.db");
  ASSERT_FALSE(database);
  EXPECT_NE(database.error().message.find("none/a.db: cannot open: unable to open database file"),
            std::string::npos)
      << database.error().message;
  auto fine = Database::open(directory / "b.db");
  auto bad = fine->prepare("SELECT * FROM absent");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("no such table: absent"), std::string::npos)
      << bad.error().message;
}

TEST_F(DatabaseTest, AnExclusiveFileIsBusyForOthers) {
  const auto path = directory / "c.db";
  auto first = Database::open(path, {.exclusive = true});
  ASSERT_TRUE(first) << first.error().message;
  auto second = Database::open(path, {.exclusive = true});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
}

}  // namespace
}  // namespace farcall::sqlite
