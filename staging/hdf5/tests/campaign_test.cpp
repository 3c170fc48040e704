#include "staging/hdf5/campaign.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::staging {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

class Campaigns : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "farcall-h5-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ / "out.h5";
  }
  void TearDown() override {
    if (!expected_.empty()) verify();
    std::vector<std::string> left;
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path() != path_) left.push_back(entry.path().filename());
    EXPECT_TRUE(left.empty()) << "left behind: " << left.front();
    fs::remove_all(folder_);
  }

  static CampaignRow row(std::uint32_t index, const char* arguments, const char* result) {
    CampaignRow row;
    row.task_id = fmt::format("0192f3a0-0000-7000-8000-0000{:08x}", index);
    row.index = index;
    row.state = result == nullptr ? "failed" : "succeeded";
    row.failure = result == nullptr ? "user_error" : "none";
    row.error = result == nullptr ? "ValueError: ü" : "";
    row.host = "n1";
    row.submitted_ms = 1000;
    row.started_ms = 2000 + index;
    row.ended_ms = 3000 + index;
    row.exit_code = result == nullptr ? 1 : 0;
    const auto set = json::parse(arguments);
    row.arguments.emplace();
    for (const auto& [key, value] : set.items())
      row.arguments->named.emplace_back(key, value_from_json(value));
    if (result != nullptr) row.result = value_from_json(json::parse(result));
    return row;
  }
  void write(const std::vector<CampaignRow>& rows) {
    if (!expected_.empty()) verify();
    auto campaign = Campaign::open(path_, "night");
    ASSERT_TRUE(campaign) << campaign.error().message;
    for (const CampaignRow& one : rows) campaign->plan(one);
    for (const CampaignRow& one : rows) {
      auto added = campaign->add(one);
      ASSERT_TRUE(added) << added.error().message;
    }
    auto done = campaign->finish();
    ASSERT_TRUE(done) << done.error().message;
  }
  // What h5py sees of the file as it is when verify() is called: one process for all of them.
  void expect(const std::string& script, json value) {
    scripts_ += script + "\n";
    expected_.push_back(std::move(value));
  }
  void verify() {
    const std::string prelude =
        "import h5py, json, sys, numpy as np\nf = h5py.File(sys.argv[1], 'r')\n"
        "own = lambda i: f['by_task'][f['tasks'][i]['task_id'].decode()]\n"
        "def show(x): print(json.dumps(x, default=lambda v: v.decode() if isinstance(v, bytes) "
        "else "
        "v.tolist()))\n";
    auto run = run_command(
        {.argv = {FARCALL_TEST_PYTHON, "-c", prelude + std::exchange(scripts_, ""), path_.string()},
         .standard_input = {},
         .working_directory = {},
         .extra_environment = {}});
    EXPECT_TRUE(run && run->exit_code == 0) << (run ? run->err : run.error().message);
    std::istringstream lines(run ? run->out : "");
    for (const json& value : std::exchange(expected_, {})) {
      std::string line;
      std::getline(lines, line);
      EXPECT_EQ(json::parse(line, nullptr, false), value);
    }
  }
  fs::path folder_, path_;
  std::string scripts_;
  std::vector<json> expected_;
};

TEST_F(Campaigns, StacksWhatAgreesAndKeepsTheRest) {
  write({row(0, R"({"x": 1, "name": "a"})", R"({"u": [1.5, 2.5], "n": 3, "who": "n1"})"),
         row(1, R"({"x": 2.5, "name": "b"})", R"({"u": [3, 4], "n": 4, "who": "ü"})"),
         row(2, R"({"x": 3, "name": "c"})", nullptr),
         row(3, R"({"x": 4, "name": "d"})",
             R"({"u": [1, 2, 3], "n": 5, "who": "", "extra": [[1]]})")});
  expect("show(f['results/u'][:].tolist()[:2])", json::parse("[[1.5, 2.5], [3, 4]]"));
  expect("show(f['results/n'][:])", json::parse("[3, 4, 0, 5]"));
  expect("show(list(f['results/who'].asstr()[:]))", json::parse(R"(["n1", "ü", "", ""])"));
  expect("show(f['missing/results/n'][:])", json::parse("[2]"));
  expect("show(f['missing/results/u'][:])", json::parse("[2, 3]"));
  expect("show(bool(np.isnan(f['results/u'][2:]).all()))", true);
  expect("show(f['results/extra'][3])", json::parse("[[1]]"));
  expect("show(own(3)['result/u'][:])", json::parse("[1, 2, 3]"));
  expect("show(f['tasks']['arg_x'])", json::parse("[1, 2.5, 3, 4]"));
  expect("show(f['tasks']['arg_name'].tolist())", json::parse(R"(["a", "b", "c", "d"])"));
  expect("show(f['tasks']['own_group'])", json::parse("[false, false, false, true]"));
  expect("show([f['tasks'][2][k] for k in ('state', 'failure', 'error', 'exit_code')])",
         json::parse(R"(["failed", "user_error", "ValueError: ü", 1])"));
  expect("show([f.attrs['format'], f.attrs['name']])",
         json::parse(R"(["farcall campaign", "night"])"));
}

TEST_F(Campaigns, GrowsByWhatIsMissing) {
  write({row(0, R"({"x": 1, "flag": true})", R"({"n": 1, "t": "one"})"),
         row(1, R"({"x": 2, "flag": false})", R"({"n": 2, "t": "two"})")});
  {
    EXPECT_EQ(Campaign::task_ids_in(path_)->size(), 2u);
    auto campaign = Campaign::open(path_, "");
    ASSERT_TRUE(campaign) << campaign.error().message;
    EXPECT_EQ(campaign->task_ids().size(), 2u);
    EXPECT_TRUE(campaign->has(row(1, "{}", nullptr).task_id));
    EXPECT_FALSE(campaign->has(row(2, "{}", nullptr).task_id));
  }
  expect("show(f['tasks']['arg_flag'])", json::parse("[true, false]"));
  write({row(2, R"({"x": 2.5, "y": "new"})", R"({"n": 3, "t": "three", "v": [7, 8]})"),
         row(3, R"({"x": "text"})", R"({"n": 4.5, "t": "four"})")});
  expect("show(f['results/n'][:3])", json::parse("[1, 2, 3]"));
  expect("show(own(3)['result/n'][()])", json(4.5));
  expect("show(list(f['results/t'].asstr()[:]))",
         json::parse(R"(["one", "two", "three", "four"])"));
  expect("show(f['results/v'][2])", json::parse("[7, 8]"));
  expect("show(f['missing/results/v'][:])", json::parse("[0, 1, 3]"));
  expect("show(f['missing/results/n'][:])", json::parse("[3]"));
  expect("show(f['tasks']['arg_x'][:3])", json::parse("[1, 2, 2.5]"));
  expect("show(f['tasks']['arg_x_text'].tolist())", json::parse(R"(["", "", "", "text"])"));
  expect("show(f['tasks']['arg_y'].tolist())", json::parse(R"(["", "", "new", ""])"));
  expect("show(np.nan_to_num(f['tasks']['arg_flag'], nan=-1))", json::parse("[1, 0, -1, -1]"));
  expect("show(f['tasks']['started_ms'])", json::parse("[2000, 2001, 2002, 2003]"));
  write({});
  expect("show(len(f['tasks']))", json(4));
}

TEST_F(Campaigns, ManyRowsGoInBlocks) {
  std::vector<CampaignRow> rows;
  for (std::uint32_t i = 0; i < 2500; ++i)
    rows.push_back(row(i, R"({"name": "some text"})", R"([0.5, 1.5])"));
  write(rows);
  write({row(2500, R"({"name": "last"})", R"([0.5, 2.5])")});
  expect("show([len(f['tasks']), f['results/value'].shape, f['results/value'][:].sum()])",
         json::parse("[2501, [2501, 2], 5003.0]"));
  expect("show(sorted(set(f['tasks']['arg_name'])))", json::parse(R"(["last", "some text"])"));
  expect("show(bool((f['tasks']['index'] == np.arange(2501)).all()))", true);
}

TEST_F(Campaigns, AnArrayAndAFolderOfTheSameName) {
  write({row(0, "{}", R"({"a": [1, 2]})"), row(1, "{}", R"({"a": [1, [2]]})"),
         row(2, "{}", R"({"a": [5, 6]})")});
  expect("show(f['results/a'][2])", json::parse("[5, 6]"));
  expect("show(own(1)['result/a/1'][:])", json::parse("[2]"));
}

TEST_F(Campaigns, WhatOnlyPythonCanReadIsKeptAsItCame) {
  CampaignRow odd = row(0, "{}", "1");
  odd.result = Value{Opaque{}};
  odd.payload = "Ppickled";
  write({odd});
  expect("show(bytes(own(0)['payload'][:]).decode())", "Ppickled");
}

TEST_F(Campaigns, FunctionsAndSubmissionsAreProvenance) {
  auto campaign = Campaign::open(path_, "night");
  ASSERT_TRUE(campaign);
  for (int twice = 0; twice < 2; ++twice)
    ASSERT_TRUE(campaign->add_function({"f-1",
                                        {{"name", "solve"}, {"kind", "python"}},
                                        {{"created_ms", 5}},
                                        "def solve(): …",
                                        "body"}));
  ASSERT_TRUE(campaign->add_submission({"s-1", {{"endpoint", "here"}}, {}, "", ""}));
  ASSERT_TRUE(campaign->finish());
  expect(
      "g = f['functions/f-1']; show([g.attrs['name'], int(g.attrs['created_ms']), "
      "g['source'].asstr()[()], bytes(g['body'][:]).decode(), "
      "f['submissions/s-1'].attrs['endpoint']])",
      json::parse(R"(["solve", 5, "def solve(): …", "body", "here"])"));
}

TEST_F(Campaigns, NothingIsTouchedBeforeItIsWhole) {
  write({row(0, "{}", "1")});
  const std::string before = *read_file(path_);
  {
    auto campaign = Campaign::open(path_, "");
    ASSERT_TRUE(campaign);
    const CampaignRow more = row(1, "{}", "2");
    campaign->plan(more);
    ASSERT_TRUE(campaign->add(more));
  }
  EXPECT_EQ(*read_file(path_), before);
}

TEST_F(Campaigns, OtherFilesAreRefused) {
  std::ofstream(path_) << "no HDF5 at all";
  auto campaign = Campaign::open(path_, "");
  ASSERT_FALSE(campaign);
  EXPECT_EQ(campaign.error().code, ErrorCode::kExists);
  EXPECT_THAT(campaign.error().message,
              HasSubstr("is no campaign file of farcall (HDF5 cannot open it)"));
  auto anew = Campaign::replace(path_, "new");
  ASSERT_TRUE(anew && anew->finish());
  expect("show([f.attrs['name'], len(f['tasks'])])", json::parse(R"(["new", 0])"));
  auto nowhere = Campaign::open(folder_ / "none" / "out.h5", "");
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("out.h5: it cannot be made: "));
}

}  // namespace
}  // namespace farcall::staging
