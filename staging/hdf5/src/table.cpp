#include "table.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace farcall::staging {

namespace {

constexpr std::size_t kTaskIdBytes = 36;
constexpr std::size_t kWordBytes = 20;  // states and failure classes
constexpr std::size_t kBlockRows = 1024;
constexpr const char* kTasks = "tasks";
constexpr const char* kFresh = "tasks.new";

bool is_text(const Leaf& leaf) { return leaf.text; }
bool is_whole(const Leaf& leaf) {
  return !leaf.text && (leaf.array.dtype.kind == 'i' || leaf.array.dtype.kind == 'u') &&
         element_as_int(leaf.array, 0).has_value();
}
bool is_bool(const Leaf& leaf) { return !leaf.text && leaf.array.dtype.kind == 'b'; }

}  // namespace

std::size_t Table::size_of(Kind kind) {
  switch (kind) {
    case Kind::kTaskId:
      return kTaskIdBytes;
    case Kind::kWord:
      return kWordBytes;
    case Kind::kBool:
      return 1;
    default:
      return 8;
  }
}

Handle Table::type_of_kind(Kind kind) {
  switch (kind) {
    case Kind::kTaskId:
      return fixed_text_type(kTaskIdBytes);
    case Kind::kWord:
      return fixed_text_type(kWordBytes);
    case Kind::kText:
      return text_type();
    case Kind::kBool:
      return bool_type();
    case Kind::kReal:
      return Handle(H5Tcopy(H5T_IEEE_F64LE), H5Tclose);
    default:
      return Handle(H5Tcopy(H5T_STD_I64LE), H5Tclose);
  }
}

void Table::add_field(std::string name, Kind kind) {
  by_name_[name] = fields_.size();
  fields_.push_back({std::move(name), kind, row_bytes_});
  row_bytes_ += size_of(kind);
}

Handle Table::row_type() const {
  Handle type(H5Tcreate(H5T_COMPOUND, row_bytes_), H5Tclose);
  for (const Field& field : fields_)
    H5Tinsert(type.get(), field.name.c_str(), field.offset, type_of_kind(field.kind).get());
  return type;
}

Result<std::set<std::string>> Table::task_ids() const {
  std::set<std::string> ids;
  if (!has_link(file_, kTasks)) return ids;
  const Handle dataset(H5Dopen2(file_, kTasks, H5P_DEFAULT), H5Dclose);
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const Handle type(H5Tcreate(H5T_COMPOUND, kTaskIdBytes), H5Tclose);
  H5Tinsert(type.get(), "task_id", 0, fixed_text_type(kTaskIdBytes).get());
  hsize_t rows = 0;
  if (!dataset || H5Sget_simple_extent_dims(space.get(), &rows, nullptr) != 1)
    return hdf5_failure(file_name_, "the table of tasks cannot be opened");
  std::vector<char> all(rows * kTaskIdBytes);
  if (H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()) < 0)
    return hdf5_failure(file_name_, "the table of tasks cannot be read");
  for (hsize_t i = 0; i < rows; ++i) ids.emplace(all.data() + i * kTaskIdBytes, kTaskIdBytes);
  return ids;
}

void Table::plan(const std::vector<Leaf>& scalars) {
  ++planned_;
  for (const Leaf& leaf : scalars) {
    Seen& seen = seen_[leaf.path];
    if (is_text(leaf))
      ++seen.texts;
    else if (is_bool(leaf))
      ++seen.bools;
    else if (is_whole(leaf))
      ++seen.ints;
    else
      ++seen.reals;
  }
}

Result<void> Table::prepare() {
  if (has_link(file_, kTasks))
    if (auto kept = keep_old_fields(); !kept) return kept;
  choose_fields();
  type_ = row_type();
  Growing layout;
  layout.type = row_type();
  layout.element_bytes = row_bytes_;
  // Checksums do not go with texts of any length, which lie elsewhere in the file.
  layout.checksum = false;
  dataset_ = make_growing(file_, kFresh, layout, old_rows_ + planned_);
  if (!dataset_) return hdf5_failure(file_name_, "the table of tasks cannot be made");
  block_.assign(row_bytes_ * kBlockRows, 0);
  return copy_old_rows();
}

// The arguments that the old table has as fields, and of which kind.
Result<void> Table::keep_old_fields() {
  const Handle dataset(H5Dopen2(file_, kTasks, H5P_DEFAULT), H5Dclose);
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  hsize_t rows = 0;
  H5Sget_simple_extent_dims(space.get(), &rows, nullptr);
  old_rows_ = rows;
  const int count = H5Tget_nmembers(type.get());
  if (!dataset || count < 0) return hdf5_failure(file_name_, "the table of tasks cannot be opened");
  for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
    char* name = H5Tget_member_name(type.get(), i);
    const std::string field = name;
    H5free_memory(name);
    if (!field.starts_with("arg_")) continue;
    const H5T_class_t kind = H5Tget_member_class(type.get(), i);
    old_arguments_[field] = kind == H5T_STRING  ? Kind::kText
                            : kind == H5T_FLOAT ? Kind::kReal
                            : kind == H5T_ENUM  ? Kind::kBool
                                                : Kind::kInt;
  }
  return {};
}

void Table::choose_fields() {
  for (const auto& [name, kind] :
       std::initializer_list<std::pair<const char*, Kind>>{{"task_id", Kind::kTaskId},
                                                           {"index", Kind::kInt},
                                                           {"state", Kind::kWord},
                                                           {"failure", Kind::kWord},
                                                           {"error", Kind::kText},
                                                           {"host", Kind::kText},
                                                           {"attempt", Kind::kInt},
                                                           {"submitted_ms", Kind::kInt},
                                                           {"started_ms", Kind::kInt},
                                                           {"ended_ms", Kind::kInt},
                                                           {"exit_code", Kind::kInt},
                                                           {"signal", Kind::kInt},
                                                           {"own_group", Kind::kBool}})
    add_field(name, kind);
  std::map<std::string, Kind> arguments = old_arguments_;
  for (const auto& [path, seen] : seen_) {
    const std::string name = "arg_" + path;
    const std::uint64_t numbers = seen.bools + seen.ints + seen.reals;
    const bool everywhere = numbers == planned_;
    auto old = old_arguments_.find(name);
    const bool numeric = old == old_arguments_.end() ? numbers > 0 : old->second != Kind::kText;
    if (numbers > 0 && numeric) {
      Kind kind = seen.bools == numbers ? Kind::kBool : seen.reals > 0 ? Kind::kReal : Kind::kInt;
      if (seen.bools > 0 && seen.bools < numbers) kind = Kind::kReal;
      const bool other = old == old_arguments_.end() ? old_rows_ > 0 : old->second != kind;
      // Whatever lacks a value somewhere needs one that says so.
      arguments[name] = !everywhere || other ? Kind::kReal : kind;
    }
    if (seen.texts > 0) arguments[numeric ? name + "_text" : name] = Kind::kText;
  }
  for (auto& [name, kind] : arguments) {
    const bool only_old = old_arguments_.contains(name) && !seen_.contains(name.substr(4));
    if (only_old && planned_ > 0 && (kind == Kind::kInt || kind == Kind::kBool)) kind = Kind::kReal;
    add_field(name, kind);
  }
}

Result<void> Table::copy_old_rows() {
  if (old_rows_ == 0) return {};
  const Handle old(H5Dopen2(file_, kTasks, H5P_DEFAULT), H5Dclose);
  for (hsize_t at = 0; at < old_rows_; at += kBlockRows) {
    const hsize_t count = std::min<hsize_t>(kBlockRows, old_rows_ - at);
    for (hsize_t i = 0; i < count; ++i) new_row();
    const Handle space(H5Dget_space(old.get()), H5Sclose);
    const Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
    H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &at, nullptr, &count, nullptr);
    // Fields are found by their names; those that the old table lacks stay as new_row() made them.
    if (H5Dread(old.get(), type_.get(), memory.get(), space.get(), H5P_DEFAULT, block_.data()) < 0)
      return hdf5_failure(file_name_, "the table of tasks cannot be read");
    auto written = write_block();
    H5Dvlen_reclaim(type_.get(), memory.get(), H5P_DEFAULT, block_.data());
    if (!written) return written;
  }
  return {};
}

char* Table::new_row() {
  char* row = block_.data() + row_bytes_ * block_rows_++;
  std::memset(row, 0, row_bytes_);
  const double nan = std::nan("");
  for (const Field& field : fields_)
    if (field.kind == Kind::kReal) std::memcpy(row + field.offset, &nan, sizeof(nan));
  return row;
}

void Table::put_text(char* row, const std::string& name, const std::string& text) {
  const Field& field = fields_[by_name_.at(name)];
  if (field.kind != Kind::kText) {
    std::memcpy(row + field.offset, text.data(), std::min(text.size(), size_of(field.kind)));
    return;
  }
  const char* kept = texts_.emplace_back(text).c_str();
  std::memcpy(row + field.offset, &kept, sizeof(kept));
}

void Table::put_number(char* row, const std::string& name, double real, std::int64_t whole) {
  const Field& field = fields_[by_name_.at(name)];
  char* place = row + field.offset;
  if (field.kind == Kind::kReal)
    std::memcpy(place, &real, sizeof(real));
  else if (field.kind == Kind::kBool)
    *place = static_cast<char>(whole != 0);
  else
    std::memcpy(place, &whole, sizeof(whole));
}

Result<void> Table::add(const CampaignRow& row, const std::vector<Leaf>& scalars, bool own_group) {
  char* at = new_row();
  put_text(at, "task_id", row.task_id);
  put_text(at, "state", row.state);
  put_text(at, "failure", row.failure);
  put_text(at, "error", row.error);
  put_text(at, "host", row.host);
  auto put = [&](const char* name, std::int64_t number) { put_number(at, name, 0, number); };
  put("index", row.index);
  put("attempt", row.attempt);
  put("submitted_ms", row.submitted_ms);
  put("started_ms", row.started_ms);
  put("ended_ms", row.ended_ms);
  put("exit_code", row.exit_code);
  put("signal", row.signal);
  put("own_group", own_group ? 1 : 0);
  for (const Leaf& leaf : scalars) {
    const std::string name = "arg_" + leaf.path;
    if (leaf.text) {
      put_text(at, by_name_.contains(name + "_text") ? name + "_text" : name, leaf.texts.at(0));
    } else {
      const auto whole = element_as_int(leaf.array, 0);
      put_number(at, name, element_as_double(leaf.array, 0).value_or(std::nan("")),
                 whole.value_or(0));
    }
  }
  return block_rows_ == kBlockRows ? write_block() : Result<void>();
}

Result<void> Table::write_block() {
  const hsize_t start = written_, count = block_rows_;
  const Handle space(H5Dget_space(dataset_.get()), H5Sclose);
  const Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr);
  if (count > 0 && H5Dwrite(dataset_.get(), type_.get(), memory.get(), space.get(), H5P_DEFAULT,
                            block_.data()) < 0)
    return hdf5_failure(file_name_, "the table of tasks cannot be written");
  written_ += count;
  clear_block();
  return {};
}

void Table::clear_block() {
  block_rows_ = 0;
  texts_.clear();
}

Result<void> Table::finish() {
  if (auto written = write_block(); !written) return written;
  dataset_.reset();
  if (old_rows_ > 0 || has_link(file_, kTasks)) H5Ldelete(file_, kTasks, H5P_DEFAULT);
  if (H5Lmove(file_, kFresh, file_, kTasks, H5P_DEFAULT, H5P_DEFAULT) < 0)
    return hdf5_failure(file_name_, "the table of tasks cannot be put in its place");
  return {};
}

}  // namespace farcall::staging
