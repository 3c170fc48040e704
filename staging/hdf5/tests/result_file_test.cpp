#include "staging/hdf5/result_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/files.h"
#include "base/hasher.h"
#include "base/keys.h"
#include "base/subprocess.h"
#include "staging/hdf5/result_folder.h"

namespace farcall::staging {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char* kTask = "0192f3a0-0000-7000-8000-000000000001";

std::string random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size + 8, '\0');
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  bytes.resize(size);
  return bytes;
}

// A value with native arrays: docs/payloads.md.
std::string native(const json& value, const json& arrays, const std::vector<std::string>& buffers) {
  json sizes = json::array();
  for (const auto& buffer : buffers) sizes.push_back(buffer.size());
  const std::string head = json{{"value", value}, {"arrays", arrays}, {"sizes", sizes}}.dump();
  const auto length = static_cast<std::uint32_t>(head.size());
  std::string payload("N\0\0\0", 4);
  payload.append(reinterpret_cast<const char*>(&length), 4).append(head);
  for (const auto& buffer : buffers) {
    payload.append((16 - payload.size() % 16) % 16, '\0');
    payload += buffer;
  }
  return payload;
}

class ResultFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "farcall-result-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result<std::string> keep(const std::string& payload, int gzip = 0) {
    std::size_t at = 0;
    return keep_result(folder_, {kTask, "n1", payload.size(), gzip},
                       [&](char* into, std::size_t size) -> Result<void> {
                         if (size > payload.size() - at)
                           return fail(ErrorCode::kInternal, "more is read than there is");
                         std::memcpy(into, payload.data() + at, size);
                         at += size;
                         return {};
                       });
  }
  fs::path only_file() const {
    std::vector<fs::path> all(fs::directory_iterator(folder_), fs::directory_iterator{});
    EXPECT_EQ(all.size(), 1u);
    return all.at(0);
  }
  // What it says; or the error.
  static Result<std::string> whole(const fs::path& path, std::size_t step = 1 << 20) {
    auto file = ResultFile::open(path);
    if (!file) return fail(file.error());
    std::string bytes(file->size(), '\0');
    for (std::size_t at = 0; at < bytes.size(); at += step)
      if (auto read = file->read(at, bytes.data() + at, std::min(step, bytes.size() - at)); !read)
        return fail(read.error());
    return bytes;
  }
  // What h5py says of the file `f`, by an expression of Python.
  json python(const std::string& expression) const {
    const std::string program =
        "import h5py, numpy, json, sys\nf = h5py.File(sys.argv[1])\ng = f['" + std::string(kTask) +
        "']\nprint(json.dumps(" + expression + "))";
    auto run = run_command({.argv = {FARCALL_TEST_PYTHON, "-c", program, only_file().string()}});
    EXPECT_TRUE(run && run->exit_code == 0) << (run ? run->err : run.error().message);
    return run ? json::parse(run->out, nullptr, false) : json();
  }

  fs::path folder_;
};

std::string mixed_payload() {
  std::string numbers(3 * 700'000 * 8, '\0'), texts(2 * 3 * 4, '\0'), flags("\0\1\1", 3);
  for (std::size_t i = 0; i < 2'100'000; ++i) {
    const double number = static_cast<double>(i);
    std::memcpy(numbers.data() + 8 * i, &number, 8);
  }
  const char32_t letters[] = {U'a', U'\u00fc', 0, 0x1f600, 0, 0};
  std::memcpy(texts.data(), letters, texts.size());
  const json value = json::parse(R"({"field": {"$a": 0}, "again": [{"$a": 0}, {"$a": 2}],
      "names": {"$a": 1}, "n": 3, "note": "hot", "fit/x": {"slope": 2.5},
      "list": [1, 2, 3], "raw": {"$b": 3}, "odd": {"$p": 0}})");
  const json arrays =
      json::parse(R"([["<f8", [3, 700000]], ["<U3", [2]], ["|b1", [3]], ["|u1", [5]]])");
  return native(value, arrays, {numbers, texts, flags, "bytes", random_bytes(4000, 1), "oob"});
}

TEST_F(ResultFiles, AnArrayThatOthersWriteIsSealedWithTheHashOfThePayload) {
  const std::string bytes = random_bytes(3 * 500'000 * 8, 5);
  const std::string payload = native({{"$a", 0}}, json::array({{"<f8", {3, 500'000}}}), {bytes});
  const auto begin = [&](const std::string& start, std::uint64_t size) {
    std::size_t at = 0;
    return begin_result(folder_, {kTask, "n1", size, 1},
                        [&](char* into, std::size_t count) -> Result<void> {
                          if (count > start.size() - at)
                            return fail(ErrorCode::kInternal, "more is read than there is");
                          std::memcpy(into, start.data() + at, count);
                          at += count;
                          return {};
                        });
  };
  const auto part = begin(payload.substr(0, payload.size() - bytes.size()), payload.size());
  ASSERT_TRUE(part) << part.error().message;
  const fs::path raw = folder_ / "raw";
  std::ofstream(raw) << bytes;
  const std::string code =
      "import sys, h5py, numpy\n"
      "with h5py.File(sys.argv[1], 'r+') as f:\n"
      "    f[sys.argv[2] + '/value'][...] = numpy.fromfile(sys.argv[3]).reshape(3, 500000)\n";
  Command write;
  write.argv = {FARCALL_TEST_PYTHON, "-c", code, part->string(), kTask, raw.string()};
  const auto written = run_command(write);
  ASSERT_TRUE(written && written->exit_code == 0) << (written ? written->err : "");
  fs::remove(raw);
  const auto hash = seal_result(*part, kTask);
  ASSERT_TRUE(hash) << hash.error().message;
  EXPECT_EQ(*hash, content_hash(payload));
  EXPECT_EQ(only_file().filename(), result_file_name(kTask, *hash));
  auto file = ResultFile::open(only_file());
  ASSERT_TRUE(file) << file.error().message;
  std::string back(file->size(), '\0');
  ASSERT_TRUE(file->read(0, back.data(), back.size()));
  EXPECT_TRUE(back == payload);

  fs::remove(only_file());
  for (const std::string& other :
       {std::string("P"), std::string("P and what is pickled"),
        native({{"x", {{"$a", 0}}}}, json::array({{"<f8", {1}}}), {std::string(8, '\0')})}) {
    const auto refused = begin(other, other.size());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message, "the payload is not that of one array");
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(ResultFiles, ArraysAreDatasetsOfTheirNamesAndTheBytesComeBackTheSame) {
  const std::string payload = mixed_payload();
  auto hash = keep(payload);
  ASSERT_TRUE(hash) << hash.error().message;
  ContentHasher hasher;
  hasher.add(payload);
  EXPECT_EQ(*hash, hasher.finish());
  EXPECT_EQ(only_file().filename(), result_file_name(kTask, *hash));
  EXPECT_EQ(whole(only_file()).value(), payload);
  EXPECT_EQ(whole(only_file(), 777'777).value(), payload);
  EXPECT_EQ(
      python("[g['value/field'].dtype.str, g['value/field'].shape, g['value/field'].fletcher32, "
             "g['value/field'][2, -1], g['value/again/0'] == g['value/field']]"),
      json::parse("[\"<f8\", [3, 700000], true, 2099999.0, true]"));
  EXPECT_EQ(python("[x.decode() for x in g['value/names'][:]]"), json::parse("[\"aü\", \"😀\"]"));
  EXPECT_EQ(python("[int(g['value/n'][()]), g['value/note'][()].decode(), "
                   "float(g['value/fit%2Fx/slope'][()]), g['value/list'][:].tolist(), "
                   "g['value/again/1'][:].tolist(), bytes(g['value/raw'][:]).decode()]"),
            json::parse(R"([3, "hot", 2.5, [1, 2, 3], [false, true, true], "bytes"])"));
  EXPECT_EQ(python("[f.attrs['format'], f.attrs['task_id'], g.attrs['host'], g.attrs['blake2b']]"),
            json({"farcall result", kTask, "n1", *hash}));
}

TEST_F(ResultFiles, OtherValuesAreBytes) {
  for (const std::string& payload :
       {"P" + random_bytes(3'000'000, 2), std::string("J"), std::string("N\1"),
        std::string("N\0\0\0\xff\xff\xff\xff rest", 13),
        "J[" + std::string(1'500'000, ' ') + "]"}) {
    ASSERT_TRUE(keep(payload)) << payload.size();
    EXPECT_EQ(whole(only_file()).value(), payload);
    fs::remove(only_file());
  }
}

TEST_F(ResultFiles, CompressedOnesAreSmallerAndTheSame) {
  const std::string payload = mixed_payload();
  ASSERT_TRUE(keep(payload, 4));
  EXPECT_LT(fs::file_size(only_file()), payload.size() / 3);
  EXPECT_EQ(whole(only_file()).value(), payload);
  EXPECT_EQ(python("g['value/field'].compression"), "gzip");
}

TEST_F(ResultFiles, ShapesOfAllKindsComeBackInAnyPieces) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 25; ++i) {
    json shape = json::array();
    std::uint64_t count = 1;
    for (std::uint64_t d = random() % 5; d > 0; --d) {
      const std::uint64_t extent = random() % (count > 100'000 ? 3 : 300);
      shape.push_back(extent);
      count *= extent;
    }
    if (count > 4'000'000) continue;
    const std::string bytes = random_bytes(count * 4, i);
    const std::string payload =
        native({{"$a", 0}}, json::array({json::array({"<f4", shape})}), {bytes});
    ASSERT_TRUE(keep(payload)) << shape;
    EXPECT_EQ(python("list(g['value'].shape)"), shape);
    auto file = ResultFile::open(only_file());
    ASSERT_TRUE(file);
    for (int piece = 0; piece < 50; ++piece) {
      const std::size_t at = random() % payload.size();
      const std::size_t size = random() % std::min<std::size_t>(payload.size() - at + 1, 3'000'000);
      std::string got(size, '\0');
      ASSERT_TRUE(file->read(at, got.data(), size));
      ASSERT_EQ(got, payload.substr(at, size)) << shape << " from " << at << " on";
    }
    fs::remove(only_file());
  }
}

TEST_F(ResultFiles, NoFlippedBitIsEverAWrongByte) {
  const std::string payload =
      native({{"a", {{"$a", 0}}}, {"b", 1}}, json::parse(R"([["<i8", [40000]]])"),
             {random_bytes(320'000, 3)});
  ASSERT_TRUE(keep(payload));
  const fs::path path = only_file();
  const std::string good = *read_file(path);
  std::mt19937_64 random(11);
  int found = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bad = good;
    // The first and the last pages are what HDF5 writes about the data.
    const std::size_t at = i % 2 == 0
                               ? random() % bad.size()
                               : (i % 4 == 1 ? random() % 4096 : bad.size() - 1 - random() % 4096);
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    std::ofstream(path, std::ios::binary) << bad;
    const auto read = whole(path);
    if (!read) {
      ++found;
      EXPECT_EQ(read.error().code, ErrorCode::kCorrupt) << read.error().message;
    } else {
      EXPECT_EQ(*read == payload, true) << "byte " << at;
    }
  }
  EXPECT_GT(found, 150);
}

TEST_F(ResultFiles, ACutFileIsSaidToBe) {
  ASSERT_TRUE(keep("P" + random_bytes(3'000'000, 4)));
  const fs::path path = only_file();
  fs::resize_file(path, 1'000'000);
  const auto read = whole(path);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(read.error().message,
              HasSubstr(path.string() + " is damaged: it cannot be opened: "));
}

TEST_F(ResultFiles, NothingIsLeftOfOneThatCannotBeWritten) {
  EXPECT_THAT(keep_result(folder_ / "none", {kTask, "n1", 1, 0}, {}).error().message,
              HasSubstr("/none: No such file or directory"));
  // In a process of its own, which ends without HDF5's clean-up: it would try to write again what
  // could not be written.
  const auto keep_too_much = [&] {
    const rlimit small{1 << 20, 1 << 20};
    std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const auto kept = keep("P" + random_bytes(8'000'000, 5));
    std::fprintf(stderr, "%s", kept ? "it was kept" : kept.error().message.c_str());
    _exit(kept ? 1 : 0);
  };
  EXPECT_EXIT(keep_too_much(), testing::ExitedWithCode(0), ": File too large");
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_TRUE(keep("P" + random_bytes(8'000'000, 5)));
}

TEST_F(ResultFiles, AFolderGivesBytesAndPiecesByHash) {
  const std::string payload = "abcdefghijklmnopqrstuvwxyz012345";
  const auto hash = keep(payload).value();
  ResultFolder folder(folder_);
  const auto gather = [&](const Pieces& pieces) { return folder.gather(hash, 32, pieces, 20); };
  EXPECT_EQ(gather({1, {3, 2}, {8, 3}, 2}).value(), "bcefjkmnrsuv");
  EXPECT_EQ(gather({30, {}, {}, 2}).value(), "45");
  for (const Pieces& wrong : std::vector<Pieces>{{31, {}, {}, 2},
                                                 {0, {5}, {8}, 1},
                                                 {0, {21}, {1}, 1},
                                                 {0, {1ull << 40, 1ull << 40}, {1, 1}, 1},
                                                 {0, {2}, {~0ull}, 1},
                                                 {0, {2}, {}, 1},
                                                 {0, {0}, {1}, 1},
                                                 {~0ull, {}, {}, 1},
                                                 {0, {}, {}, 0}})
    EXPECT_EQ(gather(wrong).error().message,
              "those pieces do not lie within 32 bytes, or are more than 20 bytes together");
  EXPECT_EQ(folder.read(hash, 32, 30, 2).value(), "45");
  EXPECT_EQ(folder.read(hash, 33, 0, 2).error().code, ErrorCode::kResultLost);
  // A file that a task left is given as it is.
  const std::string left(64, 'a');
  ASSERT_TRUE(write_file(folder_ / (std::string(kTask) + "." + left + ".file"), "0123456789"));
  EXPECT_EQ(folder.read(left, 10, 3, 4).value(), "3456");
  EXPECT_EQ(folder.read(left, 11, 3, 4).error().code, ErrorCode::kResultLost);
  ASSERT_TRUE(folder.remove(kTask, left));
  EXPECT_EQ(folder.read(left, 10, 3, 4).error().code, ErrorCode::kNotFound);
  const auto all = folder.list().value();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].task + all[0].hash, kTask + hash);
  EXPECT_EQ(folder.remove("../x", hash).error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(folder.remove(kTask, hash));
  EXPECT_EQ(folder.read(hash, 32, 0, 2).error().code, ErrorCode::kNotFound);
}

void age(const fs::path& path, fs::file_time_type::duration by) {
  fs::last_write_time(path, fs::file_time_type::clock::now() - by);
}

TEST_F(ResultFiles, WhatIsOldGoesAndWhatAWriterLeft) {
  const auto old = keep("P old").value(), young = keep("P young").value();
  ResultFolder folder(folder_);
  std::ofstream(folder_ / ".t.n1.7.part") << "left";
  std::ofstream(folder_ / ".removed.tmp-abcdef") << "left";
  std::ofstream(folder_ / ".t.n1.8.part") << "being written";
  std::ofstream(folder_ / "notes.txt") << "somebody's";
  age(folder_ / result_file_name(kTask, old), std::chrono::hours(72));
  age(folder_ / ".t.n1.7.part", std::chrono::hours(7));
  age(folder_ / ".removed.tmp-abcdef", std::chrono::hours(7));
  age(folder_ / "notes.txt", std::chrono::hours(999));
  folder.expire(std::chrono::hours(24));
  const auto gone = folder.read(old, 5, 0, 1);
  EXPECT_EQ(gone.error().code, ErrorCode::kResultLost);
  EXPECT_THAT(
      gone.error().message,
      testing::MatchesRegex((folder_ / result_file_name(kTask, old)).string() +
                            " was removed on 20..-..-.. ..:..:.. UTC, 3 days after it was written "
                            "\\(`staging.result_ttl` of the endpoint\\): run the task again"));
  EXPECT_EQ(folder.read(young, 7, 0, 7).value(), "P young");
  EXPECT_FALSE(fs::exists(folder_ / ".t.n1.7.part"));
  EXPECT_FALSE(fs::exists(folder_ / ".removed.tmp-abcdef"));
  EXPECT_TRUE(fs::exists(folder_ / ".t.n1.8.part") && fs::exists(folder_ / "notes.txt"));
}

TEST_F(ResultFiles, WhoeverAsksForWhatHasGoneIsToldWhy) {
  const auto deleted = keep("P deleted").value(), stolen = keep("P stolen").value();
  ResultFolder folder(folder_);
  ASSERT_TRUE(folder.remove(kTask, deleted));
  ASSERT_TRUE(folder.remove(kTask, deleted));  // nothing to remove any more
  const auto gone = folder.read(deleted, 9, 0, 1);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(gone.error().message,
              testing::MatchesRegex((folder_ / result_file_name(kTask, deleted)).string() +
                                    " was released by its owner on 20..-..-.. ..:..:.. UTC: run "
                                    "the task again if it is needed after all"));
  fs::remove(folder_ / result_file_name(kTask, stolen));
  const auto lost = folder.gather(stolen, 8, {0, {}, {}, 1}, 20);
  EXPECT_EQ(lost.error().code, ErrorCode::kResultLost);
  EXPECT_EQ(lost.error().message, "there is no result " + stolen + " in " + folder_.string() +
                                      ": its file was removed by somebody else, or more than 60 "
                                      "days ago; run the task again");
  // It is there again when its task has run again.
  ASSERT_TRUE(keep("P deleted"));
  EXPECT_EQ(folder.read(deleted, 9, 0, 9).value(), "P deleted");
  // A line that was cut short by a crash spoils no other.
  std::ofstream(folder_ / ".removed", std::ios::app) << "1234 released 12 5 0192f3";
  ASSERT_TRUE(folder.remove(kTask, deleted));
  EXPECT_EQ(RemovalLog(folder_).read().value().back().file, result_file_name(kTask, deleted));
  EXPECT_EQ(folder.page("", 9).value().files.size(), 1u);
  ASSERT_TRUE(RemovalLog(folder_).forget_before(std::numeric_limits<std::int64_t>::max()));
  EXPECT_TRUE(RemovalLog(folder_).read().value().empty());
}

TEST_F(ResultFiles, FilesOfTasksGoInSteps) {
  std::vector<std::string> tasks;
  for (int i = 0; i < 6; ++i) {
    tasks.push_back(fmt::format("0192f3a0-0000-7000-8000-00000000000{}", i));
    std::ofstream(folder_ / fmt::format("{}.{}.file", tasks[i], std::string(64, 'a'))) << "12345";
  }
  const auto file = [&](int i) {
    return fs::exists(folder_ / fmt::format("{}.{}.file", tasks[i], std::string(64, 'a')));
  };
  ResultFolder folder(folder_);
  const auto meant = [&](const std::string& task) { return task != tasks[3]; };
  const auto first = folder.remove_of(meant, 4, true).value();
  EXPECT_EQ(first.files, 4u);
  EXPECT_EQ(first.bytes, 20u);
  EXPECT_EQ(first.hashes, std::vector<std::string>(4, std::string(64, 'a')));
  EXPECT_TRUE(first.more);
  const auto second = folder.remove_of(meant, 4, false).value();
  EXPECT_EQ(second.files, 1u);
  EXPECT_FALSE(second.more);
  EXPECT_TRUE(file(3) && !file(0) && !file(5));
  EXPECT_EQ(RemovalLog(folder_).read().value().size(), 4u);
  EXPECT_EQ(folder.remove_of(meant, 4, true).value().files, 0u);
}

TEST_F(ResultFiles, AListHasPagesOfWhatIsThereAndOfWhatHasGone) {
  const auto name = [](int i, char digit) {
    return fmt::format("0192f3a0-0000-7000-8000-00000000000{}.{}.file", i, std::string(64, digit));
  };
  for (int i = 0; i < 5; ++i) std::ofstream(folder_ / name(i, 'a')) << std::string(i, 'x');
  ResultFolder folder(folder_);
  ASSERT_TRUE(folder.remove("0192f3a0-0000-7000-8000-000000000002", std::string(64, 'a')));
  const auto first = folder.page("", 3).value();
  ASSERT_EQ(first.files.size(), 3u);
  EXPECT_TRUE(first.more);
  EXPECT_EQ(first.files[1].kept.file_bytes, 1u);
  EXPECT_FALSE(first.files[1].removed);
  EXPECT_EQ(first.files[2].kept.file_bytes, 2u);
  EXPECT_EQ(first.files[2].removed.value().why, RemovedBy::kUser);
  fs::remove(folder_ / name(3, 'a'));  // meanwhile
  const auto second = folder.page(first.last, 3).value();
  ASSERT_EQ(second.files.size(), 1u);
  EXPECT_EQ(second.files[0].kept.file, name(4, 'a'));
  EXPECT_FALSE(second.more);
  EXPECT_EQ(folder.page("", 9).value().files.size(), 4u);
  fs::remove_all(folder_);
  EXPECT_EQ(folder.page("", 9).error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace farcall::staging
