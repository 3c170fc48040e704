// The dataset "tasks": one row per task, scalar arguments as fields of it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "handles.h"
#include "staging/flatten.h"
#include "staging/hdf5/campaign.h"

namespace farcall::staging {

class Table {
 public:
  Table(std::string file_name, hid_t file) : file_name_(std::move(file_name)), file_(file) {}
  Table(Table&&) = delete;
  ~Table() { clear_block(); }

  // The ids that are there already.
  Result<std::set<std::string>> task_ids() const;
  // `scalars`: the arguments of a row that are single elements.
  void plan(const std::vector<Leaf>& scalars);
  // The new table with the old rows in it.
  Result<void> prepare();
  Result<void> add(const CampaignRow& row, const std::vector<Leaf>& scalars, bool own_group);
  Result<void> finish();

 private:
  enum class Kind { kTaskId, kWord, kText, kInt, kReal, kBool };
  struct Field {
    std::string name;
    Kind kind = Kind::kInt;
    std::size_t offset = 0;
  };
  // What the values of one argument are, over all rows.
  struct Seen {
    std::uint64_t bools = 0, ints = 0, reals = 0, texts = 0;
  };

  static std::size_t size_of(Kind kind);
  static Handle type_of_kind(Kind kind);
  Handle row_type() const;
  void add_field(std::string name, Kind kind);
  Result<void> keep_old_fields();
  void choose_fields();
  Result<void> copy_old_rows();
  Result<void> write_block();
  void clear_block();
  char* new_row();
  void put_text(char* row, const std::string& field, const std::string& text);
  void put_number(char* row, const std::string& field, double real, std::int64_t whole);

  std::string file_name_;
  hid_t file_;
  std::map<std::string, Seen> seen_;
  std::uint64_t planned_ = 0;
  std::uint64_t old_rows_ = 0;
  std::map<std::string, Kind> old_arguments_;  // fields of the table that is there
  std::vector<Field> fields_;
  std::map<std::string, std::size_t> by_name_;
  std::size_t row_bytes_ = 0;
  Handle type_, dataset_;
  std::vector<char> block_;
  std::size_t block_rows_ = 0;
  std::deque<std::string> texts_;  // that the block points to
  std::uint64_t written_ = 0;
};

}  // namespace farcall::staging
