// Leaves of all rows stacked into datasets, one per path, row for row beside the table.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "handles.h"
#include "staging/flatten.h"

namespace farcall::staging {

class Columns {
 public:
  // `folder`: "results" or "arguments". `rows`: how many each has already.
  Columns(std::string file_name, hid_t file, std::string folder, std::uint64_t rows);

  void plan(const Leaf& leaf);
  // Makes or extends the datasets for `more` rows.
  Result<void> prepare(std::uint64_t more);
  // The leaves of one row. Those that no column suits are left in `rest`.
  Result<void> add(std::uint64_t row, const std::vector<Leaf>& leaves,
                   std::vector<const Leaf*>& rest);
  // Notes which rows have no value.
  Result<void> finish();

 private:
  struct Column {
    Handle dataset;
    Handle type;
    DType dtype;
    bool text = false;
    std::vector<std::uint64_t> shape;
    std::vector<std::uint64_t> missing;  // of the new rows
    std::uint64_t next = 0;              // row
    std::uint64_t first = 0;             // the row that it begins with in this session
  };
  struct Planned {
    std::uint64_t count = 0;
    Leaf like;  // without data
  };

  Result<void> open_existing(const std::string& prefix);
  Result<void> make(const std::string& path, const Planned& planned, std::uint64_t rows);
  Result<void> extend(Column& column, const std::string& path, std::uint64_t rows);
  bool name_is_taken(const std::string& path) const;
  bool suits(const Column& column, const Leaf& leaf) const;
  Result<void> write_row(Column& column, const Leaf& leaf, std::uint64_t row);
  Result<void> write_missing(const std::string& path, Column& column);
  std::string full(const std::string& path) const { return folder_ + "/" + path; }

  std::string file_name_;
  hid_t file_;
  std::string folder_;
  std::uint64_t rows_;
  std::uint64_t end_ = 0;
  std::map<std::string, std::map<std::string, Planned>> planned_;  // path, signature
  std::map<std::string, Column> columns_;
};

// A leaf as a dataset of its own.
Result<void> write_leaf(const std::string& file_name, hid_t location, const std::string& path,
                        const Leaf& leaf);

}  // namespace farcall::staging
