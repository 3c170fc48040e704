#include "staging/hdf5/campaign.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <system_error>

#include "columns.h"
#include "handles.h"
#include "staging/flatten.h"
#include "table.h"

namespace farcall::staging {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "farcall campaign";
constexpr std::int64_t kFormatVersion = 1;

// A row's leaves, taken apart.
struct Parts {
  std::vector<Leaf> scalars;    // of the arguments
  std::vector<Leaf> arguments;  // that are no scalars
  Flat result;
};

bool is_scalar(const Leaf& leaf) {
  if (!leaf.shape().empty()) return false;
  const char kind = leaf.array.dtype.kind;
  return leaf.text || kind == 'b' || kind == 'i' || kind == 'u' || kind == 'f';
}

Parts take_apart(const CampaignRow& row) {
  Parts parts;
  if (row.arguments) {
    std::vector<Flat> all;
    const List& positional = row.arguments->positional;
    for (std::size_t i = 0; i < positional.size(); ++i)
      all.push_back(flatten(positional[i], std::to_string(i)));
    for (const auto& [name, value] : row.arguments->named)
      all.push_back(flatten(value, path_part(name)));
    for (Flat& flat : all)
      for (Leaf& leaf : flat.leaves)
        (is_scalar(leaf) ? parts.scalars : parts.arguments).push_back(std::move(leaf));
  }
  if (row.result) parts.result = flatten(*row.result, "");
  return parts;
}

Result<void> sync_path(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  const bool fine = fd >= 0 && ::fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (!fine)
    return fail(ErrorCode::kIo, "{} cannot be synced: {}", path.string(), std::strerror(why));
  return {};
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct Campaign::Impl {
  fs::path path, fresh;
  Handle file;
  std::set<std::string> ids;
  std::uint64_t planned = 0, added = 0;
  std::unique_ptr<Table> table;
  std::unique_ptr<Columns> results, arguments;
  bool prepared = false;

  ~Impl() {
    // Datasets before the file, or that would stay open.
    table.reset();
    results.reset();
    arguments.reset();
    file.reset();
    std::error_code ignored;
    if (!fresh.empty()) fs::remove(fresh, ignored);  // gone when finish() renamed it
  }

  Result<void> begin(const std::string& name, bool keep);
  Result<void> check_format();
  Result<void> prepare();
  Result<void> add_own_group(const CampaignRow& row, const Flat& result,
                             const std::vector<const Leaf*>& results_left,
                             const std::vector<const Leaf*>& arguments_left);
  Result<void> add_group(const std::string& folder, const CampaignGroup& group);
};

Campaign::Campaign(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Campaign::Campaign(Campaign&&) noexcept = default;
Campaign& Campaign::operator=(Campaign&&) noexcept = default;
Campaign::~Campaign() = default;

Result<Campaign> Campaign::open(const fs::path& path, const std::string& name) {
  std::error_code ignored;
  return begin(path, name, fs::exists(path, ignored));
}
Result<Campaign> Campaign::replace(const fs::path& path, const std::string& name) {
  return begin(path, name, false);
}

Result<Campaign> Campaign::begin(const fs::path& path, const std::string& name, bool keep) {
  silence_hdf5();
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->fresh = path.string() + fmt::format(".new.{}", ::getpid());
  if (auto begun = impl->begin(name, keep); !begun) return fail(begun.error());
  return Campaign(std::move(impl));
}

Result<void> Campaign::Impl::begin(const std::string& name, bool keep) {
  if (keep) {
    std::error_code error;
    fs::copy_file(path, fresh, fs::copy_options::overwrite_existing, error);
    if (error)
      return fail(ErrorCode::kIo, "{} cannot be copied to {}: {}", path.string(), fresh.string(),
                  error.message());
    file = Handle(H5Fopen(fresh.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    if (auto fine = check_format(); !fine) return fine;
  } else {
    file = Handle(H5Fcreate(fresh.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    if (!file) return hdf5_failure(path.string(), "it cannot be made");
    for (auto done : {write_attribute(path.string(), file.get(), "format", kFormat),
                      write_attribute(path.string(), file.get(), "format_version", kFormatVersion),
                      write_attribute(path.string(), file.get(), "name", name),
                      write_attribute(path.string(), file.get(), "created_ms", now_ms())})
      if (!done) return done;
  }
  table = std::make_unique<Table>(path.string(), file.get());
  auto known = table->task_ids();
  if (!known) return fail(known.error());
  ids = std::move(*known);
  results = std::make_unique<Columns>(path.string(), file.get(), "results", ids.size());
  arguments = std::make_unique<Columns>(path.string(), file.get(), "arguments", ids.size());
  return {};
}

Result<void> Campaign::Impl::check_format() {
  const std::string format = file ? read_attribute(file.get(), "format") : "";
  if (format == kFormat) return {};
  H5Eclear2(H5E_DEFAULT);
  return fail(
      ErrorCode::kExists,
      "{} exists and is no campaign file of farcall ({}): choose another name, or remove it",
      path.string(), file ? "it has no such format attribute" : "HDF5 cannot open it");
}

Result<std::set<std::string>> Campaign::task_ids_in(const fs::path& path) {
  silence_hdf5();
  Impl impl;
  impl.path = path;
  impl.file = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (auto fine = impl.check_format(); !fine) return fail(fine.error());
  return Table(path.string(), impl.file.get()).task_ids();
}

const std::set<std::string>& Campaign::task_ids() const { return impl_->ids; }

void Campaign::plan(const CampaignRow& row) {
  const Parts parts = take_apart(row);
  impl_->table->plan(parts.scalars);
  for (const Leaf& leaf : parts.arguments) impl_->arguments->plan(leaf);
  for (const Leaf& leaf : parts.result.leaves) impl_->results->plan(leaf);
  ++impl_->planned;
}

Result<void> Campaign::Impl::prepare() {
  prepared = true;
  if (auto done = table->prepare(); !done) return done;
  if (auto done = results->prepare(planned); !done) return done;
  return arguments->prepare(planned);
}

Result<void> Campaign::add(const CampaignRow& row) {
  Impl& impl = *impl_;
  if (!impl.prepared)
    if (auto done = impl.prepare(); !done) return done;
  FARCALL_CHECK(impl.added < impl.planned, "a row that was not planned");
  const std::uint64_t number = impl.ids.size() + impl.added++;
  const Parts parts = take_apart(row);
  std::vector<const Leaf*> results_left, arguments_left;
  if (auto done = impl.results->add(number, parts.result.leaves, results_left); !done) return done;
  if (auto done = impl.arguments->add(number, parts.arguments, arguments_left); !done) return done;
  const bool own = !results_left.empty() || !arguments_left.empty() || parts.result.opaque ||
                   !parts.result.binaries.empty();
  if (own)
    if (auto done = impl.add_own_group(row, parts.result, results_left, arguments_left); !done)
      return done;
  return impl.table->add(row, parts.scalars, own);
}

// by_task/<id>/: what does not fit into the arrays of all tasks.
Result<void> Campaign::Impl::add_own_group(const CampaignRow& row, const Flat& result,
                                           const std::vector<const Leaf*>& results_left,
                                           const std::vector<const Leaf*>& arguments_left) {
  const std::string place = "by_task/" + row.task_id;
  const auto bytes = type_of(*parse_dtype("|u1"));
  for (const Leaf* leaf : results_left)
    if (auto done = write_leaf(path.string(), file.get(), place + "/result/" + leaf->path, *leaf);
        !done)
      return done;
  for (const Leaf* leaf : arguments_left)
    if (auto done =
            write_leaf(path.string(), file.get(), place + "/arguments/" + leaf->path, *leaf);
        !done)
      return done;
  for (const auto& [name, data] : result.binaries)
    if (auto done = write_whole(path.string(), file.get(), place + "/result/" + name, bytes,
                                {data.size()}, data.data(), 1);
        !done)
      return done;
  if (!result.opaque) return {};
  return write_whole(path.string(), file.get(), place + "/payload", bytes, {row.payload.size()},
                     row.payload.data(), 1);
}

Result<void> Campaign::Impl::add_group(const std::string& folder, const CampaignGroup& what) {
  const std::string place = folder + "/" + what.id;
  if (has_link(file.get(), place)) H5Ldelete(file.get(), place.c_str(), H5P_DEFAULT);
  const Handle group = open_or_make_group(file.get(), place);
  if (!group) return hdf5_failure(path.string(), place + " cannot be made");
  for (const auto& [name, text] : what.texts)
    if (auto done = write_attribute(path.string(), group.get(), name.c_str(), text); !done)
      return done;
  for (const auto& [name, number] : what.numbers)
    if (auto done = write_attribute(path.string(), group.get(), name.c_str(), number); !done)
      return done;
  if (!what.source.empty()) {
    const char* text = what.source.c_str();
    auto done = write_whole(path.string(), group.get(), "source", text_type(), {}, &text, 8);
    if (!done) return done;
  }
  if (what.body.empty()) return {};
  return write_whole(path.string(), group.get(), "body", type_of(*parse_dtype("|u1")),
                     {what.body.size()}, what.body.data(), 1);
}

Result<void> Campaign::add_function(const CampaignGroup& function) {
  return impl_->add_group("functions", function);
}
Result<void> Campaign::add_submission(const CampaignGroup& submission) {
  return impl_->add_group("submissions", submission);
}

Result<void> Campaign::finish() {
  Impl& impl = *impl_;
  FARCALL_CHECK(impl.added == impl.planned, "rows were planned and not added");
  if (!impl.prepared)
    if (auto done = impl.prepare(); !done) return done;
  if (auto done = impl.table->finish(); !done) return done;
  if (auto done = impl.results->finish(); !done) return done;
  if (auto done = impl.arguments->finish(); !done) return done;
  auto stamped = write_attribute(impl.path.string(), impl.file.get(), "updated_ms", now_ms());
  if (!stamped) return stamped;
  impl.table.reset();
  impl.results.reset();
  impl.arguments.reset();
  if (H5Fflush(impl.file.get(), H5F_SCOPE_GLOBAL) < 0 || impl.file.reset() < 0)
    return hdf5_failure(impl.path.string(), "it cannot be written");
  if (auto done = sync_path(impl.fresh, O_RDWR); !done) return done;
  std::error_code error;
  fs::rename(impl.fresh, impl.path, error);
  if (error)
    return fail(ErrorCode::kIo, "{} cannot be written: {}", impl.path.string(), error.message());
  const fs::path folder = impl.path.has_parent_path() ? impl.path.parent_path() : fs::path(".");
  return sync_path(folder, O_RDONLY | O_DIRECTORY);
}

}  // namespace farcall::staging
