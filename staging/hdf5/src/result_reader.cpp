#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "plain_dataset.h"
#include "result_layout.h"
#include "staging/hdf5/result_file.h"

namespace farcall::staging {

using nlohmann::json;
namespace fs = std::filesystem;

struct ResultFile::Impl {
  struct Segment {
    std::uint64_t offset = 0, size = 0;
    std::string path;
  };

  std::string name;
  Handle file, group;
  std::vector<Segment> segments;
  std::string start;  // of a native value: what comes before its head
  std::uint64_t size = 0;
  // What was read last.
  std::size_t at = 0;  // segment
  std::optional<PlainDataset> dataset;
  std::optional<std::uint64_t> run;
  std::vector<char> bytes;

  Result<void> open();
  Result<void> read_map(const std::string& text);
  Result<std::string> read_text(const char* path);
  Result<std::size_t> read_some(std::size_t segment, std::uint64_t offset, char* into,
                                std::size_t wanted);
};

ResultFile::ResultFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ResultFile::ResultFile(ResultFile&&) noexcept = default;
ResultFile& ResultFile::operator=(ResultFile&&) noexcept = default;
ResultFile::~ResultFile() = default;

Result<ResultFile> ResultFile::open(const fs::path& file) {
  silence_hdf5();
  std::error_code error;
  if (!fs::exists(file, error))
    return error ? Result<ResultFile>(
                       fail(ErrorCode::kIo, "cannot open {}: {}", file.string(), error.message()))
                 : fail(ErrorCode::kNotFound, "{} is not there", file.string());
  auto impl = std::make_unique<Impl>();
  impl->name = file.string();
  if (auto opened = impl->open(); !opened) return fail(opened.error());
  return ResultFile(std::move(impl));
}

Result<void> ResultFile::Impl::open() {
  file = Handle(H5Fopen(name.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file) return hdf5_damage(name, "it cannot be opened");
  const std::string place = read_short_attribute(file.get(), kGroupAttribute);
  if (place.empty()) return fail(ErrorCode::kCorrupt, "{} is no result file of farcall", name);
  group = Handle(H5Gopen2(file.get(), place.c_str(), H5P_DEFAULT), H5Gclose);
  if (!group) return hdf5_damage(name, "its group cannot be opened");
  auto text = read_text(kMapPath);
  if (!text) return fail(text.error());
  return read_map(*text);
}

Result<std::string> ResultFile::Impl::read_text(const char* path) {
  auto opened = PlainDataset::open(name, group.get(), path);
  if (!opened) return fail(opened.error());
  std::vector<char> text;
  if (auto read = opened->read(0, text); !read) return fail(read.error());
  return std::string(text.begin(), text.end());
}

Result<void> ResultFile::Impl::read_map(const std::string& text) {
  try {
    for (const json& one : json::parse(text)) {
      Segment segment{one.at(0).get<std::uint64_t>(), one.at(1).get<std::uint64_t>(),
                      one.at(2).get<std::string>()};
      if (segment.offset < size || segment.size > UINT64_MAX - segment.offset)
        return fail(ErrorCode::kCorrupt, "{} is damaged: its map says {}", name, text);
      size = segment.offset + segment.size;
      if (segment.path == kHeadPath) {
        start = std::string("N\0\0\0", 4);
        const auto length = static_cast<std::uint32_t>(segment.size);
        start.append(reinterpret_cast<const char*>(&length), sizeof length);
      }
      segments.push_back(std::move(segment));
    }
  } catch (const json::exception& error) {
    return fail(ErrorCode::kCorrupt, "{} is damaged: its map cannot be read: {}", name,
                error.what());
  }
  return {};
}

// As much as one chunk has of it.
Result<std::size_t> ResultFile::Impl::read_some(std::size_t segment, std::uint64_t offset,
                                                char* into, std::size_t wanted) {
  if (!dataset || segment != at) {
    run.reset();
    dataset.reset();
    auto opened = PlainDataset::open(name, group.get(), segments[segment].path);
    if (!opened) return fail(opened.error());
    if (opened->bytes() != segments[segment].size)
      return fail(ErrorCode::kCorrupt, "{} is damaged: {} has {} bytes, its map says {}", name,
                  segments[segment].path, opened->bytes(), segments[segment].size);
    dataset.emplace(std::move(*opened));
    at = segment;
  }
  const std::uint64_t wanted_run = dataset->run_at(offset);
  if (run != wanted_run) {
    run.reset();
    if (auto read = dataset->read(wanted_run, bytes); !read) return fail(read.error());
    run = wanted_run;
  }
  const std::uint64_t within = offset - dataset->extent(wanted_run).offset;
  const std::size_t count = std::min<std::uint64_t>(wanted, bytes.size() - within);
  std::memcpy(into, bytes.data() + within, count);
  return count;
}

std::uint64_t ResultFile::size() const { return impl_->size; }

Result<void> ResultFile::read(std::uint64_t offset, char* into, std::size_t size) {
  auto& segments = impl_->segments;
  std::size_t next =
      static_cast<std::size_t>(std::upper_bound(segments.begin(), segments.end(), offset,
                                                [](std::uint64_t at, const auto& segment) {
                                                  return at < segment.offset + segment.size;
                                                }) -
                               segments.begin());
  while (size > 0) {
    if (next == segments.size())
      return fail(ErrorCode::kCorrupt, "{} ends at {} bytes, {} from offset {} on were asked for",
                  impl_->name, impl_->size, size, offset);
    const auto& segment = segments[next];
    std::size_t count = 0;
    if (offset < segment.offset) {  // between the datasets
      count = std::min<std::uint64_t>(size, segment.offset - offset);
      for (std::size_t i = 0; i < count; ++i)
        into[i] = offset + i < impl_->start.size() ? impl_->start[offset + i] : '\0';
    } else if (offset < segment.offset + segment.size) {
      auto got =
          impl_->read_some(next, offset - segment.offset, into,
                           std::min<std::uint64_t>(size, segment.offset + segment.size - offset));
      if (!got) return fail(got.error());
      count = *got;
    }
    offset += count;
    into += count;
    size -= count;
    if (offset >= segment.offset + segment.size) ++next;
  }
  return {};
}

}  // namespace farcall::staging
