#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/config_text.h"
#include "cli/progress_bar.h"
#include "cli/result_file.h"
#include "cli/rows.h"
#include "cli/table.h"

namespace farcall::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "farcall-cli-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path file(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  static std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::vector<std::string> rows_of(const std::filesystem::path& path) {
    std::vector<std::string> rows;
    auto reader = RowReader::open(path);
    if (!reader) return {reader.error().message};
    while (true) {
      auto row = reader->next();
      if (!row) return rows.push_back(row.error().message), rows;
      if (!*row) return rows;
      rows.emplace_back((*row)->view());
    }
  }
  std::filesystem::path folder_;
};

TEST_F(Files, JsonLinesAreObjectsOrArrays) {
  EXPECT_THAT(rows_of(file("a.jsonl", "{\"x\": 1}\n\n[1, \"b\"]\r\n")),
              testing::ElementsAre(R"(J{"kwargs":{"x":1}})", R"(J{"args":[1,"b"]})"));
  EXPECT_THAT(rows_of(file("b.jsonl", "{}\n3\n")),
              testing::ElementsAre("J{}", HasSubstr("b.jsonl:2: expected a JSON object")));
  EXPECT_THAT(rows_of(file("c.jsonl", "{\n")),
              testing::ElementsAre(HasSubstr("c.jsonl:1: this is no JSON")));
  EXPECT_THAT(rows_of(file("d.txt", "")), testing::ElementsAre(HasSubstr(".jsonl or .csv")));
}

TEST_F(Files, CsvRowsAreKeywordsWithNumbers) {
  EXPECT_THAT(
      rows_of(file("a.csv",
                   "\xef\xbb\xbfname,x,y\r\n\"a, \"\"b\"\"\",-1,2.5e1\r\n\"two\nlines\",007,\n")),
      testing::ElementsAre(R"(J{"kwargs":{"name":"a, \"b\"","x":-1,"y":25.0}})",
                           R"(J{"kwargs":{"name":"two\nlines","x":"007","y":""}})"));
  EXPECT_THAT(rows_of(file("b.csv", "a,b\n1\n")),
              testing::ElementsAre(HasSubstr("b.csv:2: 1 fields, the first row names 2")));
  EXPECT_THAT(rows_of(file("c.csv", "a\n\"x\n")), testing::ElementsAre(HasSubstr("never closed")));
}

TEST(Csv, ValuesAreNumbersOnlyWhenTheyLookLikeNumbers) {
  EXPECT_EQ(csv_value("12"), 12);
  EXPECT_EQ(csv_value("-0.5"), -0.5);
  EXPECT_EQ(csv_value("1e3"), 1000.0);
  for (const char* text : {"", "-", "007", "nan", "inf", "0x10", "1 ", "1-2", "e5"})
    EXPECT_EQ(csv_value(text), text);
  EXPECT_EQ(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
}

json line(std::uint32_t index, const char* state = "succeeded") {
  return {{"index", index},   {"state", state}, {"result", index * 10},
          {"error", nullptr}, {"host", "n1"},   {"attempt", 1}};
}

TEST_F(Files, ResultsComeInAnyOrderAndLeaveInTheirs) {
  const auto path = folder_ / "out.partial";
  {
    auto results = ResultFile::open(path);
    ASSERT_TRUE(results) << results.error().message;
    ASSERT_TRUE(results->add(line(2)));
    ASSERT_TRUE(results->add(line(0, "failed")));
    ASSERT_TRUE(results->sync());
  }
  std::ofstream(path, std::ios::app) << "{\"index\": 1, \"sta";  // a crash in the middle of a line
  auto results = ResultFile::open(path);
  ASSERT_TRUE(results) << results.error().message;
  EXPECT_EQ(results->size(), 2u);
  EXPECT_EQ(results->failed(), 1u);
  EXPECT_FALSE(results->has(1));
  ASSERT_TRUE(results->add(line(1)));
  ASSERT_TRUE(results->add(line(1)));  // once more: nothing happens
  ASSERT_TRUE(results->write_ordered(folder_ / "out.jsonl", RowFormat::kJsonLines));
  std::istringstream text(text_of(folder_ / "out.jsonl"));
  std::vector<int> order;
  for (std::string row; std::getline(text, row);) order.push_back(json::parse(row)["index"]);
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 2));
  ASSERT_TRUE(results->write_ordered(folder_ / "out.csv", RowFormat::kCsv));
  EXPECT_THAT(text_of(folder_ / "out.csv"), HasSubstr("\n1,succeeded,10,,n1,1\n2,"));
}

TEST(Table, ColumnsAreAsWideAsTheirLongestCell) {
  EXPECT_EQ(format_table({"A", "B"}, {{"größer", "x"}, {"k", "yy"}}),
            "A       B\ngrößer  x\nk       yy\n");
  EXPECT_EQ(format_age(3725), "1 h 2 min");
  EXPECT_EQ(format_time(0), "-");
  EXPECT_EQ(format_time(1000), "1970-01-01 00:00:01");
}

TEST(ProgressBar, ShowsWhatMattersAndFitsItsLine) {
  ProgressView view{64, 32, 1, 4, 0, 8.0};
  EXPECT_EQ(render_progress(view, 79),
            "[#############-------------] 32/64   50%  4.00/s  ETA 0:08  4 running  1 failed");
  for (int width = 0; width < 100; ++width)
    EXPECT_LE(render_progress(view, width).size(), static_cast<std::size_t>(std::max(width, 0)) + 4)
        << width;
  EXPECT_THAT(render_progress(view, 20), HasSubstr("1 failed"));
  ProgressView telling = view;
  telling.partial = 1.6;
  telling.note = "task 7: 3/10 meshing";
  EXPECT_THAT(render_progress(telling, 120), HasSubstr(" 52%"));
  EXPECT_THAT(render_progress(telling, 120), HasSubstr("  task 7: 3/10 meshing"));
  EXPECT_THAT(render_progress(telling, 70), testing::Not(HasSubstr("task 7")));
  view.done = 64;
  EXPECT_THAT(render_progress(view, 79), HasSubstr("took 0:08"));
  EXPECT_THAT(render_progress({10, 5, 0, 0, 5, 3.0}, 79), testing::Not(HasSubstr("/s")));
}

TEST(ConfigText, SetsKeysWhereTheyBelong) {
  auto config = default_config("here", "slurm");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_TRUE(config->set("engine.provider.partition", "debug"));
  ASSERT_TRUE(config->set("engine.provider.walltime", "00:30:00"));
  ASSERT_TRUE(config->set("engine.provider.worker_init", "module load a: b"));
  ASSERT_TRUE(config->set("engine.max_workers_per_node", "2"));
  const std::string text = config->text();
  EXPECT_THAT(text, HasSubstr("    type: SlurmProvider\n"));
  EXPECT_THAT(text, HasSubstr("    partition: debug\n"));
  EXPECT_THAT(text, HasSubstr("    worker_init: \"module load a: b\"\n"));
  EXPECT_THAT(text, HasSubstr("\n  max_workers_per_node: 2\n"));
  EXPECT_THAT(config->set("engine", "x").error().message, HasSubstr("holds further keys"));
  EXPECT_THAT(config->set("engine.provider.type.x", "1").error().message,
              HasSubstr("holds the value"));
  EXPECT_FALSE(config->set("engine..x", "1"));
  EXPECT_FALSE(default_config("a/b", "local"));
  EXPECT_FALSE(split_assignment("nothing"));
}

}  // namespace
}  // namespace farcall::cli
