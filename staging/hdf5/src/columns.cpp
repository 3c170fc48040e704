#include "columns.h"

#include <algorithm>

namespace farcall::staging {

namespace {

constexpr const char* kSignature = "farcall_type";  // of a column: what it was made for

std::vector<const char*> pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> found;
  for (const std::string& text : texts) found.push_back(text.c_str());
  return found;
}

bool is_whole_to_real(const DType& from, const DType& to) {
  return from.text == "<i8" && to.text == "<f8";
}

std::string as_reals(const Array& whole) {
  std::string bytes;
  for (std::uint64_t i = 0; i < whole.count(); ++i) {
    const double number = *element_as_double(whole, i);
    bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
  return bytes;
}

herr_t collect_datasets(hid_t, const char* name, const H5O_info_t* info, void* found) {
  if (info->type == H5O_TYPE_DATASET)
    static_cast<std::vector<std::string>*>(found)->push_back(name);
  return 0;
}

}  // namespace

Columns::Columns(std::string file_name, hid_t file, std::string folder, std::uint64_t rows)
    : file_name_(std::move(file_name)), file_(file), folder_(std::move(folder)), rows_(rows) {}

void Columns::plan(const Leaf& leaf) {
  Planned& planned = planned_[leaf.path][leaf.signature()];
  if (planned.count++ > 0) return;
  planned.like.text = leaf.text;
  planned.like.array.dtype = leaf.array.dtype;
  planned.like.array.shape = leaf.array.shape;
}

Result<void> Columns::prepare(std::uint64_t more) {
  end_ = rows_ + more;
  if (auto opened = open_existing(folder_); !opened) return opened;
  for (auto& [path, signatures] : planned_) {
    if (columns_.contains(path)) continue;
    // Whole numbers among others are written as those.
    for (auto& [signature, planned] : signatures) {
      if (planned.like.array.dtype.text != "<i8" || planned.like.text) continue;
      auto real = signatures.find("<f8" + signature.substr(3));
      if (real == signatures.end()) continue;
      real->second.count += planned.count;
      planned.count = 0;
    }
    auto most = std::max_element(
        signatures.begin(), signatures.end(),
        [](const auto& a, const auto& b) { return a.second.count < b.second.count; });
    const bool all_differ = most->second.count == 1 && signatures.size() > 1;
    if (all_differ || name_is_taken(path)) continue;
    if (auto made = make(path, most->second, rows_); !made) return made;
  }
  H5Eclear2(H5E_DEFAULT);
  for (auto& [path, column] : columns_)
    if (auto extended = extend(column, path, end_); !extended) return extended;
  return {};
}

// A folder and an array cannot have the same name: the second one goes to each task's own group.
bool Columns::name_is_taken(const std::string& path) const {
  for (std::size_t end = path.find('/'); end != std::string::npos; end = path.find('/', end + 1))
    if (columns_.contains(path.substr(0, end))) return true;
  return has_link(file_, full(path));
}

Result<void> Columns::open_existing(const std::string& prefix) {
  if (!has_link(file_, prefix)) return {};
  const Handle group(H5Gopen2(file_, prefix.c_str(), H5P_DEFAULT), H5Gclose);
  std::vector<std::string> names;
  if (!group || H5Ovisit2(group.get(), H5_INDEX_NAME, H5_ITER_NATIVE, collect_datasets, &names,
                          H5O_INFO_BASIC) < 0)
    return hdf5_failure(file_name_, prefix + " cannot be listed");
  for (const std::string& path : names) {
    Column column;
    column.dataset = Handle(H5Dopen2(group.get(), path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!column.dataset) return hdf5_failure(file_name_, path + " cannot be opened");
    const std::string kind = read_attribute(column.dataset.get(), kSignature);
    column.text = kind == "text";
    const auto dtype = parse_dtype(kind);
    if (!column.text && !dtype) continue;  // somebody else's: left alone
    if (dtype) column.dtype = *dtype;
    column.type = column.text ? text_type() : type_of(column.dtype);
    const Handle space(H5Dget_space(column.dataset.get()), H5Sclose);
    std::vector<hsize_t> extents(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space.get())));
    H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
    if (extents.empty()) continue;
    column.shape.assign(extents.begin() + 1, extents.end());
    column.next = column.first = rows_;
    columns_.emplace(path, std::move(column));
  }
  return {};
}

Result<void> Columns::make(const std::string& path, const Planned& planned, std::uint64_t rows) {
  Column column;
  column.text = planned.like.text;
  column.dtype = planned.like.array.dtype;
  column.shape = planned.like.array.shape;
  column.type = column.text ? text_type() : type_of(column.dtype);
  Growing layout;
  layout.type = column.text ? text_type() : type_of(column.dtype);
  layout.shape = column.shape;
  layout.element_bytes = column.text ? sizeof(hvl_t) : column.dtype.size;
  layout.checksum = !column.text;
  layout.fill_with_nan = !column.text && column.dtype.kind == 'f';
  column.dataset = make_growing(file_, full(path), layout, rows);
  if (!column.dataset) return hdf5_failure(file_name_, full(path) + " cannot be made");
  auto noted = write_attribute(file_name_, column.dataset.get(), kSignature,
                               column.text ? "text" : column.dtype.text);
  if (!noted) return noted;
  for (std::uint64_t row = 0; row < rows; ++row) column.missing.push_back(row);
  column.next = column.first = rows;
  columns_.emplace(path, std::move(column));
  return {};
}

Result<void> Columns::extend(Column& column, const std::string& path, std::uint64_t rows) {
  std::vector<hsize_t> extents{rows};
  extents.insert(extents.end(), column.shape.begin(), column.shape.end());
  if (H5Dset_extent(column.dataset.get(), extents.data()) < 0)
    return hdf5_failure(file_name_, full(path) + " cannot be extended");
  return {};
}

bool Columns::suits(const Column& column, const Leaf& leaf) const {
  if (column.text != leaf.text || column.shape != leaf.shape()) return false;
  return column.text || column.dtype == leaf.array.dtype ||
         is_whole_to_real(leaf.array.dtype, column.dtype);
}

Result<void> Columns::add(std::uint64_t row, const std::vector<Leaf>& leaves,
                          std::vector<const Leaf*>& rest) {
  for (const Leaf& leaf : leaves) {
    auto found = columns_.find(leaf.path);
    if (found == columns_.end() || !suits(found->second, leaf) || found->second.next > row) {
      rest.push_back(&leaf);
      continue;
    }
    Column& column = found->second;
    for (; column.next < row; ++column.next) column.missing.push_back(column.next);
    if (auto written = write_row(column, leaf, row); !written) return written;
    column.next = row + 1;
  }
  return {};
}

Result<void> Columns::write_row(Column& column, const Leaf& leaf, std::uint64_t row) {
  std::vector<hsize_t> start(column.shape.size() + 1, 0), count{1};
  start[0] = row;
  count.insert(count.end(), column.shape.begin(), column.shape.end());
  if (leaf.array.count() == 0) return {};
  const Handle space(H5Dget_space(column.dataset.get()), H5Sclose);
  const Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
                      H5Sclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  const auto texts = pointers(leaf.texts);
  const std::string reals =
      !leaf.text && !(leaf.array.dtype == column.dtype) ? as_reals(leaf.array) : std::string();
  const void* data = leaf.text        ? static_cast<const void*>(texts.data())
                     : !reals.empty() ? reals.data()
                                      : leaf.array.data.data();
  if (H5Dwrite(column.dataset.get(), column.type.get(), memory.get(), space.get(), H5P_DEFAULT,
               data) < 0)
    return hdf5_failure(file_name_, full(leaf.path) + " cannot be written");
  return {};
}

Result<void> Columns::finish() {
  for (auto& [path, column] : columns_) {
    for (; column.next < end_; ++column.next) column.missing.push_back(column.next);
    if (column.missing.empty()) continue;
    if (auto written = write_missing(path, column); !written) return written;
  }
  return {};
}

// missing/<folder>/<path>: the numbers of the rows without a value.
Result<void> Columns::write_missing(const std::string& path, Column& column) {
  const std::string place = "missing/" + full(path);
  Handle list;
  hsize_t before = 0;
  if (has_link(file_, place)) {
    list = Handle(H5Dopen2(file_, place.c_str(), H5P_DEFAULT), H5Dclose);
    const Handle space(H5Dget_space(list.get()), H5Sclose);
    H5Sget_simple_extent_dims(space.get(), &before, nullptr);
  } else {
    Growing layout;
    layout.type = type_of(*parse_dtype("<u8"));
    list = make_growing(file_, place, layout, 0);
  }
  const hsize_t more = column.missing.size(), all = before + more;
  if (!list || H5Dset_extent(list.get(), &all) < 0)
    return hdf5_failure(file_name_, place + " cannot be extended");
  const Handle space(H5Dget_space(list.get()), H5Sclose);
  const Handle memory(H5Screate_simple(1, &more, nullptr), H5Sclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &before, nullptr, &more, nullptr);
  if (H5Dwrite(list.get(), H5T_NATIVE_UINT64, memory.get(), space.get(), H5P_DEFAULT,
               column.missing.data()) < 0)
    return hdf5_failure(file_name_, place + " cannot be written");
  return {};
}

Result<void> write_leaf(const std::string& file_name, hid_t location, const std::string& path,
                        const Leaf& leaf) {
  if (!leaf.text)
    return write_whole(file_name, location, path, type_of(leaf.array.dtype), leaf.shape(),
                       leaf.array.data.data(), leaf.array.dtype.size);
  const auto texts = pointers(leaf.texts);
  return write_whole(file_name, location, path, text_type(), leaf.shape(), texts.data(),
                     sizeof(hvl_t));
}

}  // namespace farcall::staging
