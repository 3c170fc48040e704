#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/hasher.h"
#include "columns.h"
#include "plain_dataset.h"
#include "result_layout.h"
#include "staging/flatten.h"
#include "staging/hdf5/result_file.h"

namespace farcall::staging {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// Beyond these a value is kept as the bytes that it is.
constexpr std::uint32_t kHeadBytesMax = 16 << 20;
constexpr std::size_t kBuffersMax = 10'000;
// Datasets of what is no array; they are there to be looked at and nothing else.
constexpr std::size_t kLeavesMax = 10'000;

bool has_arrays(const Value& value) {
  if (value.as<Array>() != nullptr || value.as<Binary>() != nullptr) return true;
  const auto* list = value.as<List>();
  if (list != nullptr) return std::any_of(list->begin(), list->end(), has_arrays);
  const auto* dict = value.as<Dict>();
  return dict != nullptr && std::any_of(dict->begin(), dict->end(),
                                        [](const auto& item) { return has_arrays(item.second); });
}

class ResultWriter {
 public:
  ResultWriter(std::string name, const ResultFileOptions& options, const PayloadSource& source)
      : name_(std::move(name)), options_(options), source_(source) {}

  Result<std::string> write() {
    if (auto made = make_file(); !made) return fail(made.error());
    std::string start(std::min<std::uint64_t>(options_.size, kNativeFixedBytes), '\0');
    if (auto got = pull(start.data(), start.size()); !got) return fail(got.error());
    auto done = start.size() == kNativeFixedBytes && start[0] == 'N' ? write_native(start)
                                                                     : write_opaque(start);
    if (done) done = write_map();
    if (!done) return fail(done.error());
    std::string hash = hasher_.finish();
    if (auto said = write_attribute(name_, group_.get(), kHashAttribute, hash); !said)
      return fail(said.error());
    if (auto closed = close(); !closed) return fail(closed.error());
    return hash;
  }

  // What is in the array comes later.
  Result<void> begin() {
    if (auto made = make_file(); !made) return made;
    std::string start(kNativeFixedBytes, '\0');
    auto what = options_.size < start.size() ? not_an_array() : pull_head(start);
    if (!what) return fail(what.error());
    const bool one =
        what->arrays.size() == 1 && what->sizes.size() == 1 && what->value.as<Array>() != nullptr;
    if (!one) return not_an_array();
    std::uint64_t at = start.size() + head_.size();
    if (auto done = skip_gap(at); !done) return done;
    if (at + what->sizes[0] != options_.size) return not_an_array();
    const Array& array = what->arrays[0];
    auto dataset =
        PlainDataset::make(name_, group_.get(), "value", array.dtype, array.shape, options_.gzip);
    if (!dataset) return fail(dataset.error());
    if (dataset->bytes() != what->sizes[0]) return not_an_array();
    map_.push_back({at, dataset->bytes(), "value"});
    if (auto done = write_map(); !done) return done;
    return close();
  }

 private:
  static tl::unexpected<Error> not_an_array() {
    return fail(ErrorCode::kInvalidArgument, "the payload is not that of one array");
  }

  // `start`: the fixed beginning, which it is read into.
  Result<NativeHead> pull_head(std::string& start) {
    if (auto got = pull(start.data(), start.size()); !got) return fail(got.error());
    std::uint32_t size = 0;
    std::memcpy(&size, start.data() + 4, sizeof size);
    if (start[0] != 'N' || size > kHeadBytesMax || size > options_.size - start.size())
      return not_an_array();
    head_.resize(size);
    if (auto got = pull(head_.data(), head_.size()); !got) return fail(got.error());
    auto what = decode_native_head(head_);
    if (!what) return what;
    if (auto done = write_head(start.size()); !done) return fail(done.error());
    return what;
  }

  Result<void> write_head(std::uint64_t at) {
    const auto size = static_cast<std::uint32_t>(head_.size());
    const DType text{'S', size, false, fmt::format("|S{}", size)};
    std::vector<char> bytes(head_.begin(), head_.end());
    return write_dataset(at, kHeadPath, text, {1}, &bytes);
  }

  Result<void> close() {
    group_.reset();
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0 || file_.reset() < 0)
      return hdf5_failure(name_, "it cannot be written");
    return {};
  }

  Result<void> make_file() {
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    // The first version in which all that is no data has checksums of its own.
    H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_LATEST);
    file_ = Handle(H5Fcreate(name_.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access.get()), H5Fclose);
    if (!file_) return hdf5_failure(name_, "it cannot be made");
    group_ = open_or_make_group(file_.get(), options_.task_id);
    if (!group_) return hdf5_failure(name_, "its group cannot be made");
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
    for (auto done : {write_attribute(name_, file_.get(), kFormatAttribute, kResultFormat),
                      write_attribute(name_, file_.get(), "format_version", std::int64_t{1}),
                      write_attribute(name_, file_.get(), kTaskAttribute, options_.task_id),
                      write_short_attribute(name_, file_.get(), kGroupAttribute, options_.task_id),
                      write_attribute(name_, group_.get(), "host", options_.host),
                      write_attribute(name_, group_.get(), "created_ms", std::int64_t{now})})
      if (!done) return done;
    return {};
  }

  Result<void> pull(char* into, std::size_t size) {
    if (auto got = source_(into, size); !got) return got;
    hasher_.add({into, size});
    return {};
  }

  Result<void> write_native(const std::string& start) {
    std::uint32_t size = 0;
    std::memcpy(&size, start.data() + 4, sizeof size);
    if (size > kHeadBytesMax || size > options_.size - start.size()) return write_opaque(start);
    head_.resize(size);
    if (auto got = pull(head_.data(), head_.size()); !got) return got;
    auto what = decode_native_head(head_);
    if (!what || what->sizes.size() > kBuffersMax) return write_opaque(start + head_);
    if (auto done = write_head(start.size()); !done) return done;
    paths_.resize(what->arrays.size());
    if (auto named = name(what->value, "value"); !named) return named;
    std::uint64_t at = start.size() + size;
    for (std::size_t i = 0; i < what->sizes.size(); ++i) {
      if (auto done = skip_gap(at); !done) return done;
      if (auto done = write_buffer(at, i, *what); !done) return done;
      at += what->sizes[i];
    }
    if (at != options_.size)
      return fail(ErrorCode::kCorrupt, "a result of {} bytes says of itself that it has {}",
                  options_.size, at);
    return add_aliases();
  }

  Result<void> skip_gap(std::uint64_t& at) {
    char zeros[kNativeAlignment];
    const std::size_t gap = (kNativeAlignment - at % kNativeAlignment) % kNativeAlignment;
    at += gap;
    return pull(zeros, gap);
  }

  Result<void> write_buffer(std::uint64_t at, std::size_t index, const NativeHead& what) {
    if (index >= what.arrays.size())
      return write_dataset(at, fmt::format("payload/{}", index), byte_type(), {what.sizes[index]},
                           nullptr);
    const Array& array = what.arrays[index];
    const std::string path =
        paths_[index].empty() ? fmt::format("payload/{}", index) : paths_[index].front();
    return write_dataset(at, path, array.dtype, array.shape, nullptr);
  }

  // All of it in one dataset; `start`: what has been pulled already.
  Result<void> write_opaque(const std::string& start) {
    started_ = start;
    return write_dataset(0, "payload/bytes", byte_type(), {options_.size}, nullptr);
  }

  static DType byte_type() { return *parse_dtype("|u1"); }

  // `bytes`: what is in it; null: what comes next.
  Result<void> write_dataset(std::uint64_t at, const std::string& path, const DType& dtype,
                             const std::vector<std::uint64_t>& shape, std::vector<char>* bytes) {
    auto dataset = PlainDataset::make(name_, group_.get(), path, dtype, shape, options_.gzip);
    if (!dataset) return fail(dataset.error());
    map_.push_back({at, dataset->bytes(), path});
    if (bytes != nullptr) return dataset->write(0, *bytes);
    for (std::uint64_t run = 0; run < dataset->runs(); ++run) {
      buffer_.resize(dataset->extent(run).size);
      const std::size_t have = std::min(started_.size(), buffer_.size());
      std::copy_n(started_.begin(), have, buffer_.begin());
      started_.erase(0, have);
      if (auto got = pull(buffer_.data() + have, buffer_.size() - have); !got) return got;
      if (auto done = dataset->write(run, buffer_); !done) return done;
    }
    return {};
  }

  // Finds out where the arrays belong, and writes what is none.
  Result<void> name(const Value& value, const std::string& path) {
    if (const auto* dict = value.as<Dict>()) {
      for (const auto& [key, item] : *dict)
        if (auto done = name(item, path + "/" + path_part(key)); !done) return done;
      return {};
    }
    const auto* list = value.as<List>();
    if (list != nullptr && has_arrays(value)) {
      for (std::size_t i = 0; i < list->size(); ++i)
        if (auto done = name((*list)[i], path + "/" + std::to_string(i)); !done) return done;
      return {};
    }
    const std::string free = unused(path);
    if (const auto* array = value.as<Array>()) {
      paths_.at(array->buffer).push_back(free);
      return {};
    }
    if (const auto* binary = value.as<Binary>()) {
      paths_.at(binary->buffer).push_back(free);
      return {};
    }
    for (const Leaf& leaf : flatten(value, free).leaves)
      if (++leaves_ > kLeavesMax)
        break;
      else if (auto done = write_leaf(name_, group_.get(), leaf.path, leaf); !done)
        return done;
    return {};
  }

  // Keys that are no text may look the same as text.
  std::string unused(const std::string& path) {
    const std::size_t before = used_[path]++;
    return before == 0 ? path : fmt::format("{}~{}", path, before + 1);
  }

  // One array in several places lies there once.
  Result<void> add_aliases() {
    const Handle links = make_link_properties();
    for (const auto& paths : paths_)
      for (std::size_t i = 1; i < paths.size(); ++i)
        if (H5Lcreate_hard(group_.get(), paths[0].c_str(), group_.get(), paths[i].c_str(),
                           links.get(), H5P_DEFAULT) < 0)
          return hdf5_failure(name_, paths[i] + " cannot be linked");
    return {};
  }

  Result<void> write_map() {
    const std::string text = json(map_).dump();
    const auto size = static_cast<std::uint32_t>(text.size());
    std::vector<char> bytes(text.begin(), text.end());
    auto dataset = PlainDataset::make(name_, group_.get(), kMapPath,
                                      DType{'S', size, false, fmt::format("|S{}", size)}, {1}, 0);
    if (!dataset) return fail(dataset.error());
    return dataset->write(0, bytes);
  }

  const std::string name_;
  const ResultFileOptions& options_;
  const PayloadSource& source_;
  Handle file_, group_;
  ContentHasher hasher_;
  std::string head_;  // of a native value
  std::string started_;
  std::vector<char> buffer_;
  std::vector<std::vector<std::string>> paths_;  // of each array
  std::map<std::string, std::size_t> used_;
  std::size_t leaves_ = 0;
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::string>> map_;  // offset, size, path
};

}  // namespace

Result<std::string> write_result_file(const fs::path& file, const ResultFileOptions& options,
                                      const PayloadSource& source) {
  silence_hdf5();
  return ResultWriter(file.string(), options, source).write();
}

Result<void> begin_result_file(const fs::path& file, const ResultFileOptions& options,
                               const PayloadSource& source) {
  silence_hdf5();
  return ResultWriter(file.string(), options, source).begin();
}

Result<std::string> seal_result_file(const fs::path& file) {
  std::string place, hash;
  {
    auto opened = ResultFile::open(file);
    if (!opened) return fail(opened.error());
    ContentHasher hasher;
    std::vector<char> piece(1 << 20);
    for (std::uint64_t at = 0; at < opened->size(); at += piece.size()) {
      piece.resize(std::min<std::uint64_t>(piece.size(), opened->size() - at));
      if (auto read = opened->read(at, piece.data(), piece.size()); !read)
        return fail(read.error());
      hasher.add({piece.data(), piece.size()});
    }
    hash = hasher.finish();
  }
  const std::string name = file.string();
  Handle written(H5Fopen(name.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
  if (!written) return hdf5_failure(name, "it cannot be opened");
  place = read_short_attribute(written.get(), kGroupAttribute);
  {
    const Handle group(H5Gopen2(written.get(), place.c_str(), H5P_DEFAULT), H5Gclose);
    if (!group) return hdf5_failure(name, "its group cannot be opened");
    if (auto said = write_attribute(name, group.get(), kHashAttribute, hash); !said)
      return fail(said.error());
  }
  if (H5Fflush(written.get(), H5F_SCOPE_GLOBAL) < 0 || written.reset() < 0)
    return hdf5_failure(name, "it cannot be written");
  return hash;
}

}  // namespace farcall::staging
