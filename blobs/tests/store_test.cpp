#include "blobs/store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "base/files.h"
#include "base/keys.h"

namespace farcall::blobs {
namespace {

class StoreTest : public testing::Test {
 protected:
  std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) / ("blobs-" + random_token(6));
  std::string bytes_ = std::string(3'000'000, 'x') + "end";
  wire::BlobRef blob_{content_hash(bytes_), bytes_.size()};
  ~StoreTest() override { std::filesystem::remove_all(root_); }
  std::string_view cut(std::size_t from, std::size_t size) {
    return std::string_view(bytes_).substr(from, size);
  }
};

TEST_F(StoreTest, KeepsWhatWasWrittenAndListsIt) {
  {
    Store store(root_);
    ASSERT_TRUE(store.open().value().empty());
    ASSERT_EQ(store.begin("u/" + blob_.hash, blob_).value(), 0u);
    ASSERT_TRUE(store.append("u/" + blob_.hash, 0, cut(0, 1000)));
    ASSERT_TRUE(store.append("u/" + blob_.hash, 1000, cut(1000, bytes_.size())));
    ASSERT_TRUE(store.finish("u/" + blob_.hash, blob_));
  }
  Store store(root_);
  const auto entries = store.open().value();
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].name, "u/" + blob_.hash);
  EXPECT_EQ(entries[0].size, bytes_.size());
  EXPECT_EQ(store.read(entries[0].name, 2'999'999, 4).value().view(), "xend");
  EXPECT_TRUE(verify_file(store.file(entries[0].name), blob_));
}

TEST_F(StoreTest, GoesOnWithABeginningOfAnEarlierLife) {
  {
    Store store(root_);
    ASSERT_TRUE(store.open());
    ASSERT_TRUE(store.begin(blob_.hash, blob_));
    ASSERT_TRUE(store.append(blob_.hash, 0, cut(0, 5000)));
  }
  Store store(root_);
  ASSERT_TRUE(store.open().value().empty());
  ASSERT_EQ(store.begin(blob_.hash, blob_).value(), 5000u);
  ASSERT_TRUE(store.append(blob_.hash, 5000, cut(5000, bytes_.size())));
  EXPECT_TRUE(store.finish(blob_.hash, blob_));
}

TEST_F(StoreTest, AFlippedBitInTheBeginningIsFound) {
  Store store(root_);
  ASSERT_TRUE(store.open());
  ASSERT_TRUE(store.begin(blob_.hash, blob_));
  ASSERT_TRUE(store.append(blob_.hash, 0, cut(0, 5000)));
  const auto part = root_ / (blob_.hash + ".part");
  std::fstream(part, std::ios::in | std::ios::out | std::ios::binary).seekp(17).put('y');
  ASSERT_EQ(store.begin(blob_.hash, blob_).value(), 5000u);
  ASSERT_TRUE(store.append(blob_.hash, 5000, cut(5000, bytes_.size())));
  const auto done = store.finish(blob_.hash, blob_);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(done.error().message.find("is damaged: its content has the hash"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(part));
}

TEST_F(StoreTest, SaysWhatIsWrongWithAFile) {
  Store store(root_);
  ASSERT_TRUE(store.open());
  const auto missing = store.read(blob_.hash, 0, 10);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_file(store.file(blob_.hash), cut(0, 100)));
  const auto cut_short = store.read(blob_.hash, 90, 20);
  ASSERT_FALSE(cut_short);
  EXPECT_NE(cut_short.error().message.find("ends at 100 bytes, 20 from offset 90 on were asked"),
            std::string::npos);
  const auto verified = verify_file(store.file(blob_.hash), blob_);
  ASSERT_FALSE(verified);
  EXPECT_NE(verified.error().message.find("has 100 bytes, blob " + blob_.hash + " has 3000003"),
            std::string::npos);
}

TEST_F(StoreTest, AFullDiskIsSaidAndItGoesOnWhenThereIsRoom) {
  Store store(root_);
  ASSERT_TRUE(store.open());
  ASSERT_TRUE(store.begin(blob_.hash, blob_));
  ASSERT_TRUE(store.append(blob_.hash, 0, cut(0, 5000)));
  // No file system of our own to fill: a limit on the size of files ends writes in the same way.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{8192, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto refused = store.append(blob_.hash, 5000, cut(5000, 100'000));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(),
            (Error{ErrorCode::kIo, "cannot write " + (root_ / (blob_.hash + ".part")).string() +
                                       ": File too large"}));
  ASSERT_EQ(store.begin(blob_.hash, blob_).value(), 5000u);
  ASSERT_TRUE(store.append(blob_.hash, 5000, cut(5000, bytes_.size())));
  EXPECT_TRUE(store.finish(blob_.hash, blob_));
}

}  // namespace
}  // namespace farcall::blobs
